-- include: _ready
-- KEYS: totals
-- pop(count, most_bytes): takes up to `count` live messages off the front, dropping expired ones, and entries without a
-- value, on the way. Stops early where an answer has become large, or reaches `most_bytes`, if given. Returns their keys,
-- values and expiries (ms since 1970, or 0), and whether it stopped at a bound of its own rather than at the queue's end:
-- then there may be more.
local EXPIRED_AT_MOST = 1000
local BYTES_AT_MOST = 16777216

local function pop(count, most_bytes)
  most_bytes = math.min(most_bytes or BYTES_AT_MOST, BYTES_AT_MOST)
  local keys, values, expiries, expired, dropped, bytes = {}, {}, {}, {}, 0, 0
  local expiring = call('ZCARD', EXPIRING) > 0
  while #keys < count and dropped < EXPIRED_AT_MOST and bytes < most_bytes do
    local front = call('RPOP', READY, count - #keys)
    if not front then break end
    for i, key in ipairs(front) do
      if bytes >= most_bytes then
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
  return keys, values, expiries, dropped >= EXPIRED_AT_MOST or bytes >= most_bytes
end

-- These are taken for good, and nothing of them stays. Returns them as columns.
local function take_out(keys, values, expiries)
  if #keys == 0 then return {} end
  local looked_at = {}
  for i, key in ipairs(keys) do looked_at[i] = key .. ':refcount' end
  local looks = call('MGET', unpack(looked_at))
  local records = call('EXISTS', DELIVERIES) == 1 and call('HMGET', DELIVERIES, unpack(keys)) or {}
  forget(keys)
  call('HINCRBY', TOTALS, 'out', #keys)
  return as_columns(keys, values, looks, expiries, {}, records)
end
