-- Looks at the newest messages, without counting it as a look. Expired ones among the newest 2,000 are passed over.
-- ARGV: queue, clock, how many at most.
-- Returns the messages as columns, see _ready; the newest first.
-- include: _prelude
-- include: _ready
local keys, values, looks, expiries, records = {}, {}, {}, {}, {}
local SCANNED_AT_MOST, WANTED = 2000, tonumber(ARGV[3])
for _, key in ipairs(call('LRANGE', READY, 0, SCANNED_AT_MOST - 1)) do
  if #keys >= WANTED then break end
  local value = value_of(key)
  if value then
    local i = #keys + 1
    keys[i], values[i], looks[i] = key, value, call('GET', key .. ':refcount') or '0'
    expiries[i], records[i] = tonumber(call('ZSCORE', EXPIRING, key) or 0), call('HGET', DELIVERIES, key) or ''
  end
end
return as_columns(keys, values, looks, expiries, {}, records)
