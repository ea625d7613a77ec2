-- Adds dead letters, e.g. those of another server. max_length does not count.
-- KEYS, ARGV: as for add. The options are whole, ttl_ms, record, and those of a fingerprint.
-- Returns {'' or 'conflict', key, …}.
-- durable
-- include: _prelude
-- include: _options
-- include: _fail
-- include: _begin
-- include: _copy
local keys = {''}
-- include: _known
if call('SADD', QUEUE_SET, QUEUE) == 1 then begin(NUMBER, LAST_NUMBER, TOTALS) end
local first = call('INCRBY', NUMBER, count) - count + 1
for i = 1, count do
  local key, value = string.format('%s:%.0f', QUEUE, first + i - 1), ARGV[first_value + i - 1]
  keys[i + 1] = key
  call('SET', key, value)
  if expires_ms > 0 then call('PEXPIREAT', key, string.format('%.0f', expires_ms)) end
  if record ~= '' then call('HSET', DELIVERIES, key, record) end
  make_dead_letter(key, now_ms())
  copy(key, value, record)
end
if options.fingerprint then
  local known = string.format('%s %.0f %d', options.fingerprint, first, count)
  call('SET', KEYS[#KEYS], known, 'PX', options.fingerprint_ms)
end
schedule_forwarding()
return keys
