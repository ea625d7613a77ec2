-- Dead letters go to the queue that is named for them, as new messages there, with a note of where they come from. A
-- bounded number a call.
-- KEYS: number; then of the other queue: queue_set, number, ready, expiring, deliveries.
-- ARGV: queue, clock, the other queue's name.
-- Returns how many are left.
-- include: _prelude
-- include: _lease
local AT_MOST = 500
local OTHER = ARGV[3]
local QUEUES, OTHER_NUMBER, OTHER_READY, OTHER_EXPIRING, OTHER_DELIVERIES = unpack(KEYS, #KEYS - 4)

call('SADD', QUEUES, OTHER)
for _, key in ipairs(call('ZRANGE', DEAD, 0, AT_MOST - 1)) do
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
look_at_nearest()
return call('ZCARD', DEAD)
