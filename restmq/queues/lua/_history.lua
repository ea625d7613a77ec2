-- KEYS: channel, number, history, history_values
-- The last broadcast messages, for consumers that reconnect. HISTORY is a list of keys, the oldest first.
-- HISTORY_VALUES is a hash: for each key the expiry, a blank and the value. The settings history and history_bytes
-- limit number and size. The field `bytes` of the hash is the size at the last count plus all that was added since.
-- Only when that exceeds the limit, entries are counted again; so a message costs no more than one addition.
local HISTORY_BYTES_DEFAULT, KEPT_PART = 67108864, 7 / 8

-- Drops the oldest messages until number and size are within their limits. If there are too many bytes, 7/8 of the
-- limit stay, so that the next count is not due at once. A message larger than that empties the history, as a history
-- must not have holes.
local function fit_history(count_max, bytes_max)
  local sizes, bytes = {}, 0
  for i, key in ipairs(call('LRANGE', HISTORY, 0, -1)) do
    sizes[i] = call('HSTRLEN', HISTORY_VALUES, key)
    bytes = bytes + sizes[i]
  end
  local dropped, kept_max = 0, bytes > bytes_max and bytes_max * KEPT_PART or bytes_max
  while bytes > kept_max or #sizes - dropped > count_max do
    dropped = dropped + 1
    bytes = bytes - sizes[dropped]
  end
  if dropped == #sizes then
    call('UNLINK', HISTORY, HISTORY_VALUES)
  else
    for _ = 1, dropped do call('HDEL', HISTORY_VALUES, call('LPOP', HISTORY)) end
    call('HSET', HISTORY_VALUES, 'bytes', bytes)
  end
end

local function remember(key, value, expires_ms, count_max)
  local entry = string.format('%.0f', expires_ms) .. ' ' .. value
  local count = call('RPUSH', HISTORY, key)
  call('HSET', HISTORY_VALUES, key, entry)
  if count > count_max then call('HDEL', HISTORY_VALUES, call('LPOP', HISTORY)) end
  local bytes = call('HINCRBY', HISTORY_VALUES, 'bytes', #entry)
  local bytes_max = tonumber(call('HGET', SETTINGS, 'history_bytes') or HISTORY_BYTES_DEFAULT)
  local is_first_count = bytes == #entry and count > 1 -- the history of an older version
  if bytes > bytes_max or is_first_count then fit_history(count_max, bytes_max) end
end

-- Publishes a marker on the channel, with the number of the last message and the last key of the history. A daemon that
-- receives it has received everything that was published before.
local function publish_marker(marker)
  local number, last_key = call('GET', NUMBER) or 0, call('LINDEX', HISTORY, -1) or ''
  call('PUBLISH', CHANNEL, 'mark ' .. marker .. ' ' .. number .. ' ' .. last_key)
end
