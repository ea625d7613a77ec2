-- Many queues in numbers.
-- KEYS: per queue its list, its expiring messages, its status, its policy, its leased, delayed and dead messages, the
-- last number given, its totals, its marks of time (see _age).
-- Returns per queue how many messages wait, 1 if it is started or 0, 1 broadcast or 2 roundrobin, how many are leased,
-- delayed and dead, the last number given, how many have gone out, and when the oldest that waits came, in ms since
-- 1970, or nil if nothing waits or it is unknown; flat.
local KEYS_A_QUEUE = 10
local call = redis.call
-- include: _oldest
local time = call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
local function add(number) found[#found + 1] = number end -- false becomes Redis' nil

for i = 1, #KEYS, KEYS_A_QUEUE do
  local ready = call('LLEN', KEYS[i])
  if ready > 0 then ready = ready - call('ZCOUNT', KEYS[i + 1], '-inf', now_ms) end
  add(ready)
  add(call('GET', KEYS[i + 2]) == '0' and 0 or 1)
  add(call('GET', KEYS[i + 3]) == '2' and 2 or 1)
  for j = 4, 6 do add(call('ZCARD', KEYS[i + j])) end
  add(tonumber(call('GET', KEYS[i + 7]) or 0))
  add(tonumber(call('HGET', KEYS[i + 8], 'out') or 0))
  local oldest = ready > 0 and oldest_mark(KEYS[i], KEYS[i + 1], KEYS[i + 9], now_ms)
  add(oldest and tonumber(oldest) or false)
end
return found
