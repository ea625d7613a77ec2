-- include: _history
-- KEYS: channel
-- publish(key, value, expires_ms): sends a message to all live consumers, on every daemon. Returns whether any daemon
-- received it. If so, the message goes into the queue's history, if it keeps one.
local function publish(key, value, expires_ms)
  if call('PUBLISH', CHANNEL, 'message ' .. key .. '\n' .. value) == 0 then return false end
  local count_max = setting('history')
  if count_max > 0 then remember(key, value, expires_ms, count_max) end
  return true
end
