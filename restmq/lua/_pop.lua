-- pop(count): takes up to `count` live messages off the front of the queue, dropping the expired ones on the way.
-- Returns them as a flat list key, value, looks, expiry in ms since 1970 or 0, …, and whether it stopped at its own bound rather than at the
-- queue's end: then a caller that got nothing must ask again.
local EXPIRED_AT_MOST = 1000

local function pop(count)
  local popped, taken, expired = {}, 0, 0
  while taken < count and expired < EXPIRED_AT_MOST do
    local key = call('RPOP', READY)
    if not key then return popped, taken, false end
    local value = call('GET', key)
    if value then
      taken = taken + 1
      popped[#popped + 1] = key
      popped[#popped + 1] = value
      popped[#popped + 1] = call('GET', key .. ':refcount') or '0'
      popped[#popped + 1] = call('ZSCORE', EXPIRING, key) or '0'
    else
      expired = expired + 1
    end
    forget(key)
  end
  if taken > 0 then call('HINCRBY', TOTALS, 'out', taken) end
  return popped, taken, expired >= EXPIRED_AT_MOST
end
