-- Moves dead letters to the queue that the setting dead_letter names, as new messages with a note of their origin. A
-- bounded number per call.
-- KEYS: at the end those of the other queue: queue_set, number, ready, expiring, deliveries, times.
-- ARGV: queue, clock, the other queue's name.
-- Returns the number of dead letters that remain.
-- allow-oom
-- include: _prelude
-- include: _lease
-- include: _age
local FORWARDED_MAX = 500
local OTHER = ARGV[3]
local QUEUES, OTHER_NUMBER, OTHER_READY, OTHER_EXPIRING, OTHER_DELIVERIES, OTHER_TIMES = unpack(KEYS, #KEYS - 5)

-- If one of these keys has a wrong type, the script fails here, before it has moved anything.
call('SADD', QUEUES, OTHER)
local next_number = call('INCRBY', OTHER_NUMBER, 0) + 1
call('HLEN', OTHER_DELIVERIES)
call('ZCARD', OTHER_EXPIRING)
call('LLEN', OTHER_READY)
mark_time(next_number, OTHER_READY, OTHER_EXPIRING, OTHER_TIMES)
for _, key in ipairs(call('ZRANGE', DEAD, 0, FORWARDED_MAX - 1)) do
  local record, expires_ms = record_of(key), expiry_if_alive(key)
  if expires_ms then
    local other_key = OTHER .. ':' .. string.format('%.0f', call('INCR', OTHER_NUMBER))
    local origin = {key = key, count = record.count, first = record.first, last = record.last}
    call('RENAME', key, other_key)
    call('HSET', OTHER_DELIVERIES, other_key, cjson.encode({count = 0, origin = origin}))
    if expires_ms > 0 then call('ZADD', OTHER_EXPIRING, expires_ms, other_key) end
    call('LPUSH', OTHER_READY, other_key)
    forget({key})
  end
  call('ZREM', DEAD, key)
end
reschedule()
return call('ZCARD', DEAD)
