-- include: _value
-- pop(count, bytes_max): pops up to `count` live messages from the front. Drops expired ones and entries without a
-- value. Stops early at `bytes_max`, if given, or when the answer has become large. Returns a table: keys; values;
-- expiries (ms since 1970 or 0; nil if EXPIRING has no entries at all); has_records, whether DELIVERIES has any entries;
-- more, whether it stopped at a limit, so that there may be more.
local EXPIRED_MAX = 1000
local BYTES_MAX = 16777216

local function pop(count, bytes_max)
  bytes_max = math.min(bytes_max or BYTES_MAX, BYTES_MAX)
  -- EXISTS counts a key as often as it is named, so one call tells of each whether it exists.
  local existing = call('EXISTS', EXPIRING, DELIVERIES, DELIVERIES)
  local is_expiring, has_records = existing % 2 == 1, existing > 1
  local keys, values, expiries, expired, dropped, bytes = {}, {}, is_expiring and {} or nil, nil, 0, 0
  while #keys < count and dropped < EXPIRED_MAX and bytes < bytes_max do
    local front = call('RPOP', READY, count - #keys)
    if not front then break end
    for i, key in ipairs(front) do
      if bytes >= bytes_max then
        for j = #front, i, -1 do call('RPUSH', READY, front[j]) end
        break
      end
      local value, foreign = value_of(key)
      local expires_ms = is_expiring and tonumber(call('ZSCORE', EXPIRING, key) or 0)
      if value and (not is_expiring or expires_ms == 0 or expires_ms > now_ms()) then
        keys[#keys + 1], values[#values + 1] = key, value
        if is_expiring then expiries[#keys] = expires_ms end
        bytes = bytes + #value
      else
        dropped = dropped + 1
        if not foreign then
          expired = expired or {}
          expired[#expired + 1] = key
        end
      end
    end
  end
  if dropped > 0 then
    -- include: _forget
    if expired then forget(expired) end
    call('HINCRBY', TOTALS, 'expired', dropped)
  end
  local more = dropped >= EXPIRED_MAX or bytes >= bytes_max
  return {keys = keys, values = values, expiries = expiries, has_records = has_records, more = more}
end
