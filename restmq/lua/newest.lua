-- Looks at the newest messages, without counting it as a look.
-- ARGV: queue, how many at most.
-- Returns {key, value, looks, expiry, …}, the newest first.
-- include: _prelude
local found = {}
for _, key in ipairs(call('LRANGE', READY, 0, tonumber(ARGV[2]) - 1)) do
  local value = call('GET', key)
  if value then
    found[#found + 1] = key
    found[#found + 1] = value
    found[#found + 1] = call('GET', key .. ':refcount') or '0'
    found[#found + 1] = call('ZSCORE', EXPIRING, key) or '0'
  end
end
return found
