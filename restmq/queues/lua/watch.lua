-- Watches queues that are to end (see _idle) and are not watched yet: those that are older than --queue-expires, and those
-- that a daemon of another version took off DUE.
-- KEYS: DUE, the sorted set of queues by time; the channel of deadlines; then per queue: settings, idle.
-- ARGV: time in ms since 1970 or '', seconds for queues without the setting, then the queues' names.
-- allow-oom
local call = redis.call
local time = call('TIME')
local now = ARGV[1] ~= '' and tonumber(ARGV[1]) or time[1] * 1000 + math.floor(time[2] / 1000)
local due, due_channel = KEYS[1], KEYS[2]
local before = call('ZRANGE', due, 0, 0)[1]
for i = 3, #ARGV do
  local settings, idle = unpack(KEYS, 2 * i - 3, 2 * i - 2)
  local seconds = tonumber(call('HGET', settings, 'expires') or ARGV[2])
  if seconds > 0 and not (call('EXISTS', idle) == 1 and call('ZSCORE', due, ARGV[i])) then
    local check_ms = now + seconds * 1000
    call('SET', idle, string.format('%.0f -', check_ms))
    call('ZADD', due, 'LT', check_ms, ARGV[i])
  end
end
local nearest, nearest_ms = unpack(call('ZRANGE', due, 0, 0, 'WITHSCORES'))
if nearest and nearest ~= before then
  call(PUBLISH, due_channel, string.format('%.0f', math.max(0, nearest_ms - now)))
end
