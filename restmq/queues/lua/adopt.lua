-- Takes dead letters of a queue in another partition as new messages with a note of their origin. Each is taken once,
-- however often the call is repeated within a day.
-- ARGV: queue, clock, then a digest of the letter, its value, expiry in ms since 1970 or 0, record with its origin, …
-- Returns the number of those that were new.
-- durable
-- include: _prelude
-- include: _age
-- include: _wake
-- include: _begin
-- include: _copy
-- include: _retention
local KNOWN_MS = 86400000
-- If one of these keys has a wrong type, the script fails here, before it has taken anything.
if call('SADD', QUEUE_SET, QUEUE) == 1 then begin(NUMBER, LAST_NUMBER, TOTALS) end
local next_number = call('INCRBY', NUMBER, 0) + 1
call('HLEN', DELIVERIES)
call('ZCARD', EXPIRING)
call('LLEN', READY)
mark_time(next_number)
local new = 0
for i = 3, #ARGV, 4 do
  local digest, value, expires_ms, record = unpack(ARGV, i, i + 3)
  if call('SET', QUEUE .. ':adopted:' .. digest, 1, 'NX', 'PX', KNOWN_MS) then
    local key = QUEUE .. ':' .. string.format('%.0f', call('INCR', NUMBER))
    call('SET', key, value)
    expires_ms = expiry_here(cjson.decode(record), expires_ms)
    if expires_ms > 0 then
      call('PEXPIREAT', key, expires_ms)
      call('ZADD', EXPIRING, expires_ms, key)
    end
    call('HSET', DELIVERIES, key, record)
    call('LPUSH', READY, key)
    new = new + 1
    copy(key, value, record)
  end
end
wake()
return new
