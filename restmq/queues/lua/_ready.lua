-- KEYS: ready, expiring, deliveries
-- Ready messages, and the keys that belong to a message. EXPIRING has the expiries of ready messages only: Redis drops
-- an expired value by itself, but its entry is still in the list and must not be counted.
local function length()
  return call('LLEN', READY) - call('ZCOUNT', EXPIRING, '-inf', now_ms())
end

-- A message's value, or nil. People can add entries by hand. An entry may name a key of another type, which is no
-- message and must not be dropped: then the second result is true. The script must not fail, or popped messages would
-- be lost.
local function value_of(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then return nil, true end
  return value or nil, false
end

-- Drops all keys of these messages.
local function forget(keys)
  local dropped = {}
  for i, key in ipairs(keys) do dropped[2 * i - 1], dropped[2 * i] = key, key .. ':refcount' end
  call('DEL', unpack(dropped))
  call('ZREM', EXPIRING, unpack(keys))
  call('HDEL', DELIVERIES, unpack(keys))
end

-- The message's expiry in ms since 1970, or 0 for never. Drops an expired message and returns nil.
local function expiry_if_alive(key)
  local expires_ms = call('PEXPIRETIME', key)
  if expires_ms == -2 or (expires_ms > 0 and expires_ms <= now_ms()) then
    forget({key})
    return nil
  end
  return math.max(0, expires_ms)
end

-- Notes the expiry of a message that becomes ready. Drops an expired message and returns false.
local function becomes_ready(key)
  local expires_ms = expiry_if_alive(key)
  if not expires_ms then return false end
  if expires_ms > 0 then call('ZADD', EXPIRING, expires_ms, key) end
  return true
end

-- Messages as scripts return them, one list per column: keys, values, looks or deliveries, expiries in ms since 1970 or
-- 0, receipts, records of deliveries. A column that has only defaults is an empty list.
local function as_columns(keys, values, counts, expiries, receipts, records)
  local function unless_all(default, cells)
    local differs = false
    for i = 1, #keys do
      local cell = cells[i] or default
      differs = differs or cell ~= default
      cells[i] = cell
    end
    return differs and cells or {}
  end
  expiries = unless_all(0, expiries)
  for i, expires_ms in ipairs(expiries) do expiries[i] = string.format('%.0f', expires_ms) end
  return {keys, values, unless_all('0', counts), expiries, receipts, unless_all('', records)}
end
