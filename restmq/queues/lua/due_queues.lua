-- Lists the queues that are due now.
-- KEYS: DUE, the sorted set of queues by time.
-- ARGV: time in ms since 1970 or '', maximum number of queues.
-- Returns {ms until the next queue is due, or -1 if none will be; queue, …}.
local call = redis.call
local time = call('TIME')
local now = ARGV[1] ~= '' and tonumber(ARGV[1]) or time[1] * 1000 + math.floor(time[2] / 1000)
local queues = call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
local next_ms = call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
return {next_ms and tonumber(next_ms) - now or -1, unpack(queues)}
