-- include: _forget
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
