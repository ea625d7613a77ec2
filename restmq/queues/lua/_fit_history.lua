-- include: _history
-- Drops the oldest messages until number and size are within their limits. If there are too many bytes, 7/8 of the
-- limit stay, so that the next count is not due at once. A message larger than that empties the history, as a history
-- must not have holes.
local function fit_history(count_max, bytes_max)
  local sizes, bytes = {}, 0
  for i, key in ipairs(call('LRANGE', HISTORY, 0, -1)) do
    sizes[i] = call('HSTRLEN', HISTORY_VALUES, key) + call('HSTRLEN', HISTORY_VALUES, key .. RECORD)
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
    if dropped > 0 then drop_oldest(dropped) end
    call('HSET', HISTORY_VALUES, 'bytes', bytes)
  end
end
