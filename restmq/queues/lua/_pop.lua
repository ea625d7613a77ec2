-- include: _value
-- include: _forget
-- pop(count, bytes_max): pops up to `count` live messages from the front. Drops expired ones and entries without a
-- value. Stops early at `bytes_max`, if given, or when the answer has become large. Returns keys, values, expiries (ms
-- since 1970, or 0), and whether it stopped at a limit, so that there may be more.
local EXPIRED_MAX = 1000
local BYTES_MAX = 16777216

local function pop(count, bytes_max)
  bytes_max = math.min(bytes_max or BYTES_MAX, BYTES_MAX)
  local keys, values, expiries, expired, dropped, bytes = {}, {}, {}, {}, 0, 0
  local expiring = call('ZCARD', EXPIRING) > 0
  while #keys < count and dropped < EXPIRED_MAX and bytes < bytes_max do
    local front = call('RPOP', READY, count - #keys)
    if not front then break end
    for i, key in ipairs(front) do
      if bytes >= bytes_max then
        for j = #front, i, -1 do call('RPUSH', READY, front[j]) end
        break
      end
      local value, foreign = value_of(key)
      local expires_ms = expiring and tonumber(call('ZSCORE', EXPIRING, key) or 0) or 0
      if value and (expires_ms == 0 or expires_ms > now_ms()) then
        keys[#keys + 1], values[#values + 1], expiries[#expiries + 1] = key, value, expires_ms
        bytes = bytes + #value
      else
        dropped = dropped + 1
        if not foreign then expired[#expired + 1] = key end
      end
    end
  end
  if #expired > 0 then forget(expired) end
  if dropped > 0 then call('HINCRBY', TOTALS, 'expired', dropped) end
  return keys, values, expiries, dropped >= EXPIRED_MAX or bytes >= bytes_max
end
