-- Looks at the next message, counts the look, and leaves the message where it is.
-- ARGV: queue, clock.
-- Returns as take does.
-- KEYS: totals
-- include: _prelude
-- include: _ready
-- include: _due
local EXPIRED_AT_MOST = 1000
if overdue() then return {2} end
for _ = 1, EXPIRED_AT_MOST do
  local key = call('LINDEX', READY, -1)
  if not key then return {0} end
  local value, foreign = value_of(key)
  local expires_ms = tonumber(call('ZSCORE', EXPIRING, key) or 0)
  if value and (expires_ms == 0 or expires_ms > now_ms()) then
    local looks = call('INCR', key .. ':refcount')
    if expires_ms > 0 then call('PEXPIREAT', key .. ':refcount', string.format('%.0f', expires_ms)) end
    return {0, unpack(as_columns({key}, {value}, {tostring(looks)}, {expires_ms}, {}, {call('HGET', DELIVERIES, key)}))}
  end
  call('RPOP', READY)
  if not foreign then forget({key}) end
  call('HINCRBY', TOTALS, 'expired', 1)
end
return {1}
