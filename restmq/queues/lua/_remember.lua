-- include: _history
local function remember(key, value, expires_ms, record, count_max)
  local entry = string.format('%.0f', expires_ms) .. ' ' .. value
  local count = call('RPUSH', HISTORY, key)
  call('HSET', HISTORY_VALUES, key, entry)
  if record ~= '' then call('HSET', HISTORY_VALUES, key .. RECORD, record) end
  if count > count_max then drop_oldest() end
  local bytes = call('HINCRBY', HISTORY_VALUES, 'bytes', #entry + #record)
  local bytes_max = tonumber(call('HGET', SETTINGS, 'history_bytes') or HISTORY_BYTES_DEFAULT)
  local is_first_count = bytes == #entry + #record and count > 1 -- the history of an older version
  if bytes > bytes_max or is_first_count then
    -- include: _fit_history
    fit_history(count_max, bytes_max)
  end
end
