-- Counters of many queues, for monitoring.
-- KEYS: per queue: number, totals, ready, expiring, leased, delayed, dead, status, times.
-- Returns a flat list, per queue: number of messages added; its totals out, leased, acked, redelivered, expired and
-- dead; number of messages ready, leased, delayed, dead; 1 if started or 0; age in ms of the oldest ready message, or
-- -1 if there is none or its age is unknown.
local KEYS_A_QUEUE = 9
local call = redis.call
-- include: _ready_of
local time = call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
local function add(number) found[#found + 1] = tonumber(number or 0) end

for i = 1, #KEYS, KEYS_A_QUEUE do
  local number, totals, ready, expiring, leased, delayed, dead, status, times = unpack(KEYS, i, i + KEYS_A_QUEUE - 1)
  local counts = call('HMGET', totals, 'before', 'out', 'leased', 'acked', 'redelivered', 'expired', 'dead')
  add((call('GET', number) or 0) - (counts[1] or 0))
  for j = 2, #counts do add(counts[j]) end
  local length, oldest = ready_of(ready, expiring, times, now_ms)
  add(length)
  for _, set in ipairs({leased, delayed, dead}) do add(call('ZCARD', set)) end
  add(call('GET', status) == '0' and 0 or 1)
  add(oldest and math.max(0, now_ms - tonumber(oldest)) or -1)
end
return found
