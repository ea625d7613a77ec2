-- Adds dead letters, e.g. those of another server.
-- KEYS: with a fingerprint one more at the end, to store it as add does.
-- ARGV: queue, clock, ttl in ms or 0, fingerprint or '', lifetime of the fingerprint in ms, record of each message or '',
-- then the values.
-- Returns {'' or 'conflict', key, …}.
-- durable
-- include: _prelude
-- include: _record
-- include: _fail
-- include: _begin
-- include: _copy
local ttl_ms, fingerprint, FIRST = tonumber(ARGV[3]), ARGV[4], 7
local count, keys = #ARGV - FIRST + 1, {''}
local function key_of(number) return string.format('%s:%.0f', QUEUE, number) end

if fingerprint ~= '' then
  local seen, first = string.match(call('GET', KEYS[#KEYS]) or '', '^(%S+) (%d+)')
  if seen and seen ~= fingerprint then return {'conflict'} end
  if seen then
    for i = 1, count do keys[i + 1] = key_of(first + i - 1) end
    return keys
  end
end
if call('SADD', QUEUE_SET, QUEUE) == 1 then begin(NUMBER, LAST_NUMBER, TOTALS) end
local first = call('INCRBY', NUMBER, count) - count + 1
for i = 1, count do
  local key = key_of(first + i - 1)
  keys[i + 1] = key
  call('SET', key, ARGV[FIRST + i - 1])
  if ttl_ms > 0 then call('PEXPIREAT', key, string.format('%.0f', now_ms() + ttl_ms)) end
  if ARGV[6] ~= '' then call('HSET', DELIVERIES, key, ARGV[6]) end
  make_dead_letter(key, now_ms())
  copy(key, ARGV[FIRST + i - 1], ARGV[6])
end
if fingerprint ~= '' then
  call('SET', KEYS[#KEYS], string.format('%s %.0f %d', fingerprint, first, count), 'PX', ARGV[5])
end
schedule_forwarding()
return keys
