-- Peeks at the next message, counts the peek, and leaves the message in its place.
-- ARGV: queue, clock.
-- Returns as take does.
-- allow-oom
-- include: _prelude
-- include: _overdue
-- include: _value
-- include: _forget
-- include: _columns
local EXPIRED_MAX = 1000
if overdue() then return {PROMOTE_FIRST} end
for _ = 1, EXPIRED_MAX do
  local key = call('LINDEX', READY, -1)
  if not key then
    if scheduled_ms then call('SET', IDLE, '0', 'XX') end
    return {DONE}
  end
  local value, foreign = value_of(key)
  local expires_ms = tonumber(call('ZSCORE', EXPIRING, key) or 0)
  if value and (expires_ms == 0 or expires_ms > now_ms()) then
    local looks = call('INCR', key .. ':refcount')
    if expires_ms > 0 then call('PEXPIREAT', key .. ':refcount', string.format('%.0f', expires_ms)) end
    local record = call('HGET', DELIVERIES, key)
    return append_messages({DONE}, {keys = {key}, values = {value}, expiries = {expires_ms}}, {looks}, nil, {record})
  end
  call('RPOP', READY)
  if not foreign then forget({key}) end
  call('HINCRBY', TOTALS, 'expired', 1)
end
return {MORE}
