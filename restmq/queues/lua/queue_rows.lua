-- Rows of the list of queues.
-- KEYS: per queue: ready, expiring, status, policy, leased, delayed, dead, number, totals, times.
-- Returns a flat list, per queue: number of ready messages, 1 if started or 0, 1 broadcast or 2 roundrobin, number of
-- leased, delayed and dead messages, number of messages added, number gone out, time of the oldest ready message in ms
-- since 1970, or nil if there is none or it is unknown.
local KEYS_A_QUEUE = 10
local call = redis.call
-- include: _ready_of
local time = call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
local function add(number) found[#found + 1] = number end -- Redis turns false into nil

for i = 1, #KEYS, KEYS_A_QUEUE do
  local ready, oldest = ready_of(KEYS[i], KEYS[i + 1], KEYS[i + 9], now_ms)
  add(ready)
  local has_any = call('EXISTS', unpack(KEYS, i + 2, i + 6)) > 0 -- most queues have none of the five
  add(has_any and call('GET', KEYS[i + 2]) == '0' and 0 or 1)
  add(has_any and call('GET', KEYS[i + 3]) == '2' and 2 or 1)
  for j = 4, 6 do add(has_any and call('ZCARD', KEYS[i + j]) or 0) end
  local before, out = unpack(call('HMGET', KEYS[i + 8], 'before', 'out'))
  add((call('GET', KEYS[i + 7]) or 0) - (before or 0))
  add(tonumber(out or 0))
  add(oldest and tonumber(oldest) or false)
end
return found
