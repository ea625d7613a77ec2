-- Looks at the next message, counts the look, and leaves the message where it is.
-- ARGV: queue.
-- Returns {1 if there may be more behind expired ones, key, value, looks, expiry}.
-- include: _prelude
local EXPIRED_AT_MOST = 1000
for _ = 1, EXPIRED_AT_MOST do
  local key = call('LINDEX', READY, -1)
  if not key then return {0} end
  local value = call('GET', key)
  if value then
    local looks = call('INCR', key .. ':refcount')
    local expires_ms = call('ZSCORE', EXPIRING, key) or '0'
    if expires_ms ~= '0' then call('PEXPIREAT', key .. ':refcount', expires_ms) end
    return {0, key, value, looks, expires_ms}
  end
  call('RPOP', READY)
  forget(key)
end
return {1}
