-- Length, status and policy of many queues.
-- KEYS: per queue its list, its expiring messages, its status, its policy.
-- Returns per queue its length, 1 if it is started or 0, and 1 broadcast or 2 roundrobin, flat.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
for i = 1, #KEYS, 4 do
  found[#found + 1] = redis.call('LLEN', KEYS[i]) - redis.call('ZCOUNT', KEYS[i + 1], '-inf', '(' .. now_ms)
  found[#found + 1] = redis.call('GET', KEYS[i + 2]) == '0' and 0 or 1
  found[#found + 1] = redis.call('GET', KEYS[i + 3]) == '2' and 2 or 1
end
return found
