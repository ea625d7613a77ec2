-- What is due comes up: messages whose lease is over go back to the front or to the dead letters, those whose delay is
-- over go to the back. A bounded number a call.
-- ARGV: queue, clock.
-- Returns {1 if more is due now, the queue for dead letters if there are some to go there, else ''}.
-- include: _prelude
-- include: _lease
-- include: _wake
-- include: _age
local ENOUGH, AT_MOST = 500, 5000

-- The first ones in a range of times, and no millisecond cut in two: what went in together is sorted here as a whole.
-- Returns their keys, their times by key, and whether there may be more.
local function first_ones(command, set, from, to)
  local edge = call(command, set, from, to, 'WITHSCORES', 'LIMIT', ENOUGH - 1, 1)[2]
  local flat = call(command, set, from, edge or to, 'WITHSCORES', 'LIMIT', 0, AT_MOST)
  local keys, at_ms = {}, {}
  for i = 1, #flat, 2 do keys[#keys + 1], at_ms[flat[i]] = flat[i], tonumber(flat[i + 1]) end
  return keys, at_ms, edge ~= nil
end

-- Sorts keys by their numbers, or by these times first: in a sorted set equal times stand in the order of the keys' text.
local function sort(keys, at_ms)
  local number = {}
  for _, key in ipairs(keys) do number[key] = number_of(key) end
  table.sort(keys, function(a, b)
    if at_ms and at_ms[a] ~= at_ms[b] then return at_ms[a] < at_ms[b] end
    return number[a] < number[b]
  end)
end

-- Those whose lease ended last come first: the next call puts the others in front of them.
local over, ended_ms, more_over = first_ones('ZREVRANGEBYSCORE', LEASED, now_ms(), '-inf')
sort(over)
for _, key in ipairs(over) do end_lease(key) end
fail(over, false, ended_ms)

local coming, due_ms, more_coming = first_ones('ZRANGEBYSCORE', DELAYED, '-inf', now_ms())
sort(coming, due_ms)
if #coming > 0 then mark_time(number_of(coming[1])) end
for _, key in ipairs(coming) do
  call('ZREM', DELAYED, key)
  if not wait_in_line('LPUSH', key) then call('HINCRBY', TOTALS, 'expired', 1) end
end

look_at_nearest()
wake()
return {(more_over or more_coming) and 1 or 0, dead_to_forward() and call('HGET', SETTINGS, 'dead_letter') or ''}
