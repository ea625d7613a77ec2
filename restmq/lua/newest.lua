-- Looks at the newest messages, without counting it as a look. Expired ones among the newest 2,000 are passed over.
-- ARGV: queue, clock, how many at most.
-- Returns {key, value, looks, expiry, '', record, …}, the newest first.
-- include: _prelude
-- include: _ready
local found = {}
local SCANNED_AT_MOST, WANTED = 2000, tonumber(ARGV[3])
for _, key in ipairs(call('LRANGE', READY, 0, SCANNED_AT_MOST - 1)) do
  if #found >= WANTED * 6 then break end
  local value = call('GET', key)
  if value then
    local looks, expires_ms = call('GET', key .. ':refcount') or '0', call('ZSCORE', EXPIRING, key) or '0'
    for _, part in ipairs({key, value, looks, expires_ms, '', call('HGET', DELIVERIES, key) or ''}) do
      found[#found + 1] = part
    end
  end
end
return found
