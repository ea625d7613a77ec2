-- Peeks at the newest messages; the peek is not counted. Skips expired ones among the newest 2,000.
-- ARGV: queue, clock, maximum number.
-- Returns the messages (see _columns), the newest first.
-- include: _prelude
-- include: _value
-- include: _columns
-- include: _places
local keys, values, looks, expiries, records = {}, {}, {}, {}, {}
local SCANNED_MAX, WANTED = 2000, tonumber(ARGV[3])
for _, key in ipairs(from_end(0, SCANNED_MAX - 1)) do
  if #keys >= WANTED then break end
  local value = value_of(key)
  if value then
    local i = #keys + 1
    keys[i], values[i], looks[i] = key, value, call('GET', key .. ':refcount')
    expiries[i], records[i] = tonumber(call('ZSCORE', EXPIRING, key) or 0), call('HGET', DELIVERIES, key)
  end
end
return append_messages({}, {keys = keys, values = values, expiries = expiries}, looks, nil, records)
