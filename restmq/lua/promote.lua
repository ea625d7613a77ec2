-- What is due comes up: messages whose lease is over go back to the front or to the dead letters, those whose delay is
-- over go to the back. A bounded number a call.
-- ARGV: queue, clock.
-- Returns {1 if more is due now, the queue for dead letters if there are some to go there, else ''}.
-- include: _prelude
-- include: _lease
-- include: _wake
local AT_MOST = 500
local now = now_ms()

local over = call('ZRANGEBYSCORE', LEASED, '-inf', now, 'LIMIT', 0, AT_MOST)
local full = #over == AT_MOST
table.sort(over, by_number)
for i = #over, 1, -1 do fail(over[i], false) end

local up = call('ZRANGEBYSCORE', DELAYED, '-inf', now, 'WITHSCORES', 'LIMIT', 0, AT_MOST)
local due_ms, coming = {}, {}
for i = 1, #up, 2 do
  coming[#coming + 1] = up[i]
  due_ms[up[i]] = tonumber(up[i + 1])
end
table.sort(coming, function(a, b)
  if due_ms[a] ~= due_ms[b] then return due_ms[a] < due_ms[b] end
  return by_number(a, b)
end)
for _, key in ipairs(coming) do
  call('ZREM', DELAYED, key)
  if not wait_in_line('LPUSH', key) then call('HINCRBY', TOTALS, 'expired', 1) end
end

look_at_nearest()
wake()
local more = full or #coming == AT_MOST
return {more and 1 or 0, dead_to_forward() and call('HGET', SETTINGS, 'dead_letter') or ''}
