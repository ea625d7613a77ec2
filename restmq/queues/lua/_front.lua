-- include: _ready
-- include: _number
-- KEYS: totals
-- Returns messages that reached no consumer to the front of the queue, each behind any older ones there. When several
-- clients disconnect at once, the calls that return their messages come in any order.
local OLDER_MAX = 2000

-- put_in_front(keys, put): `put(i)` has to put the i-th message in front. After OLDER_MAX older messages, the rest goes
-- before all others.
local function put_in_front(keys, put)
  local seen, line = 0, {}
  local function next_living()
    while seen < OLDER_MAX do
      seen = seen + 1
      local front = call('LINDEX', READY, -1)
      if not front or expiry_if_alive(front) then return front end
      call('RPOP', READY)
      call('HINCRBY', TOTALS, 'expired', 1)
    end
  end
  local front = next_living()
  for i, key in ipairs(keys) do
    while front and number_of(front) < number_of(key) do
      line[#line + 1] = call('RPOP', READY)
      front = next_living()
    end
    line[#line + 1] = i
  end
  for at = #line, 1, -1 do
    if type(line[at]) == 'number' then put(line[at]) else call('RPUSH', READY, line[at]) end
  end
end
