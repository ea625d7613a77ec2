-- include: _ready
-- include: _number
-- KEYS: totals
-- What reached nobody goes back to where it came from: to the front, but each message behind those there that are older.
-- Several clients that left at once give back what was taken for them in calls that come in any order.
local LOOKED_AT_MOST = 2000

-- put_in_front(keys, put): the messages go to the front in their order, and among those there by their age; `put(i)` has
-- to put the i-th there. After a bounded number of older ones the rest goes before all others.
local function put_in_front(keys, put)
  local looked, line = 0, {}
  local function next_alive()
    while looked < LOOKED_AT_MOST do
      looked = looked + 1
      local front = call('LINDEX', READY, -1)
      if not front or expiry_if_alive(front) then return front end
      call('RPOP', READY)
      call('HINCRBY', TOTALS, 'expired', 1)
    end
  end
  local front = next_alive()
  for i, key in ipairs(keys) do
    while front and number_of(front) < number_of(key) do
      line[#line + 1] = call('RPOP', READY)
      front = next_alive()
    end
    line[#line + 1] = i
  end
  for at = #line, 1, -1 do
    if type(line[at]) == 'number' then put(line[at]) else call('RPUSH', READY, line[at]) end
  end
end
