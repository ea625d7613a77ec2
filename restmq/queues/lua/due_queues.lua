-- Which queues must be looked at now, and how long until the next one must.
-- KEYS: the sorted set of queues by time.
-- ARGV: time in ms since 1970 or '', how many at most.
-- Returns {ms until the next, or -1 if there is none; queue, …}.
local time = redis.call('TIME')
local now = ARGV[1] ~= '' and tonumber(ARGV[1]) or time[1] * 1000 + math.floor(time[2] / 1000)
local queues = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
local next_one = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
return {next_one and tonumber(next_one) - now or -1, unpack(queues)}
