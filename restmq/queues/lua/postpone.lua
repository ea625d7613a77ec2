-- Makes a queue due later, if it is due at all.
-- KEYS: DUE, the sorted set of queues by time.
-- ARGV: time in ms since 1970 or '', the queue's name, delay in ms.
-- allow-oom
local time = redis.call('TIME')
local now = ARGV[1] ~= '' and tonumber(ARGV[1]) or time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[3]), ARGV[2])
