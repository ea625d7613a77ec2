-- KEYS: channel, history, history_values
-- publish(key, value, expires_ms): sends a message to all live consumers, on every daemon. Returns whether any daemon
-- received it. If so, the message goes into the queue's history, if it keeps one, for consumers that come back.
local function remember(key, value, expires_ms, kept)
  call('RPUSH', HISTORY, key)
  call('HSET', HISTORY_VALUES, key, string.format('%.0f', expires_ms) .. ' ' .. value)
  if call('LLEN', HISTORY) > kept then call('HDEL', HISTORY_VALUES, call('LPOP', HISTORY)) end
end

local function publish(key, value, expires_ms)
  if call('PUBLISH', CHANNEL, 'message ' .. key .. '\n' .. value) == 0 then return false end
  local kept = setting('history')
  if kept > 0 then remember(key, value, expires_ms, kept) end
  return true
end
