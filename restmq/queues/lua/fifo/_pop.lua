-- include: _value
-- include: _forget
-- pop(count, bytes_max): pops up to `count` live messages: as many as possible of the group whose first message is the
-- oldest, then of the next one. Drops expired ones. Stops early at `bytes_max`, if given, or when the answer has become
-- large. Returns a table as the part that this replaces.
-- The groups are settled by the caller, which leases the messages or drops their keys.
local BYTES_MAX = 16777216

local function pop(count, bytes_max)
  bytes_max = math.min(bytes_max or BYTES_MAX, BYTES_MAX)
  local keys, values, expiries, expired, bytes = {}, {}, {}, {}, 0

  local function pop_of(group)
    for _, number in ipairs(first_numbers(group, count - #keys)) do
      local key = key_of(number)
      if bytes >= bytes_max or call('ZSCORE', DELAYED, key) then return end
      local value, expires_ms = value_of(key), tonumber(call('ZSCORE', EXPIRING, key) or 0)
      if value and (expires_ms == 0 or expires_ms > now_ms()) then
        keys[#keys + 1], values[#values + 1], expiries[#expiries + 1] = key, value, expires_ms
        call('ZREM', ORDERED, key)
        bytes = bytes + #value
      else
        expired[#expired + 1] = key
      end
    end
  end

  for _, group in ipairs(call('ZRANGE', GROUPS, 0, count - 1)) do
    if #keys >= count or bytes >= bytes_max then break end
    pop_of(group)
  end
  if #expired > 0 then
    forget(expired)
    call('HINCRBY', TOTALS, 'expired', #expired)
  end
  local more = #keys < count and (#expired > 0 or bytes >= bytes_max)
  return {keys = keys, values = values, expiries = expiries, has_records = true, more = more}
end
