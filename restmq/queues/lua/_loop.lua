-- Begins every script with a loop over many queues, whose names are in ARGV (see restmq/store/scripts.py).
local call = redis.call
local FIFO = '.fifo'
local time = call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local now = string.format('%d', now_ms)
local found = {}

-- include: _oldest
-- The time at which the first ready message of a queue was sent, or nil.
local function oldest_of(first, deliveries, ready, expiring, times)
  if first then return cjson.decode(call('HGET', deliveries, first)).sent end
  return tonumber(oldest_mark(ready, expiring, times, now_ms))
end
