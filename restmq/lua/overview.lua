-- Many queues in numbers.
-- KEYS: per queue its list, its expiring messages, its status, its policy, its leased, delayed and dead messages.
-- Returns per queue how many messages wait, 1 if it is started or 0, 1 broadcast or 2 roundrobin, how many are leased,
-- delayed and dead, flat.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
local function add(number) found[#found + 1] = number end
for i = 1, #KEYS, 7 do
  add(redis.call('LLEN', KEYS[i]) - redis.call('ZCOUNT', KEYS[i + 1], '-inf', now_ms))
  add(redis.call('GET', KEYS[i + 2]) == '0' and 0 or 1)
  add(redis.call('GET', KEYS[i + 3]) == '2' and 2 or 1)
  for j = 4, 6 do add(redis.call('ZCARD', KEYS[i + j])) end
end
return found
