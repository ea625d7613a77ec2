-- Looks at the next message, counts the look, and leaves the message where it is.
-- ARGV: queue.
-- Returns {1 if there may be more behind expired ones, key, value, looks}.
-- include: _prelude
local EXPIRED_AT_MOST = 1000
for _ = 1, EXPIRED_AT_MOST do
  local key = call('LINDEX', READY, -1)
  if not key then return {0} end
  local value = call('GET', key)
  if value then
    local looks = call('INCR', key .. ':refcount')
    local ttl_ms = call('PTTL', key)
    if ttl_ms > 0 then call('PEXPIRE', key .. ':refcount', ttl_ms) end
    return {0, key, value, looks}
  end
  call('RPOP', READY)
  forget(key)
end
return {1}
