-- Looks at the newest messages, without counting it as a look. Expired ones among the newest 2,000 are passed over.
-- ARGV: queue, how many at most.
-- Returns {key, value, looks, expiry, …}, the newest first.
-- include: _prelude
local found = {}
local SCANNED_AT_MOST, WANTED = 2000, tonumber(ARGV[2])
for _, key in ipairs(call('LRANGE', READY, 0, SCANNED_AT_MOST - 1)) do
  if #found >= WANTED * 4 then break end
  local value = call('GET', key)
  if value then
    found[#found + 1] = key
    found[#found + 1] = value
    found[#found + 1] = call('GET', key .. ':refcount') or '0'
    found[#found + 1] = call('ZSCORE', EXPIRING, key) or '0'
  end
end
return found
