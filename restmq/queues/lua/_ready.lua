-- KEYS: ready, expiring, deliveries
-- The messages that wait, and what belongs to a message. `EXPIRING` has the expiry of waiting messages only: Redis drops
-- an expired value by itself, but its entry still stands in the list, and must not be counted.
local function length()
  return call('LLEN', READY) - call('ZCOUNT', EXPIRING, '-inf', now_ms())
end

-- A message's value, or nil. Entries can be put in by hand: one may name a key of another kind, which then is no message
-- and not ours to drop; that is the second result. A script must not fail in its middle: what it has popped would be lost.
local function value_of(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then return nil, true end
  return value or nil, false
end

-- All keys of these messages: their values, how often they were looked at and delivered.
local function forget(keys)
  local doomed = {}
  for i, key in ipairs(keys) do doomed[2 * i - 1], doomed[2 * i] = key, key .. ':refcount' end
  call('DEL', unpack(doomed))
  call('ZREM', EXPIRING, unpack(keys))
  call('HDEL', DELIVERIES, unpack(keys))
end

-- When the message expires, in ms since 1970, or 0 for never; nil if it has, and then nothing of it stays.
local function expiry_if_alive(key)
  local expires_ms = call('PEXPIRETIME', key)
  if expires_ms == -2 or (expires_ms > 0 and expires_ms <= now_ms()) then
    forget({key})
    return nil
  end
  return math.max(0, expires_ms)
end

-- A message waits (again): 'RPUSH' puts it at the front, 'LPUSH' at the back. Returns whether it still lives.
local function wait_in_line(push, key)
  local expires_ms = expiry_if_alive(key)
  if not expires_ms then return false end
  if expires_ms > 0 then call('ZADD', EXPIRING, expires_ms, key) end
  call(push, READY, key)
  return true
end

-- Messages as scripts return them: their keys, values, looks or deliveries, expiries in ms since 1970 or 0, receipts,
-- records of deliveries, each in a list of its own. A list that has nothing to say is empty.
local function as_columns(keys, values, counts, expiries, receipts, records)
  local function unless_all(default, cells)
    local says = false
    for i = 1, #keys do
      local cell = cells[i] or default
      says = says or cell ~= default
      cells[i] = cell
    end
    return says and cells or {}
  end
  expiries = unless_all(0, expiries)
  for i, expires_ms in ipairs(expiries) do expiries[i] = string.format('%.0f', expires_ms) end
  return {keys, values, unless_all('0', counts), expiries, receipts, unless_all('', records)}
end
