-- include: _history
-- Adds messages to the history. `fields` has their fields of HISTORY_VALUES, each followed by its value; `bytes` is the
-- size of these values.
local function remember(keys, fields, bytes, count_max)
  local count = call('RPUSH', HISTORY, unpack(keys))
  call('HSET', HISTORY_VALUES, unpack(fields))
  local bytes_all = call('HINCRBY', HISTORY_VALUES, 'bytes', bytes)
  if count > count_max then drop_oldest(count - count_max) end
  local bytes_max = tonumber(call('HGET', SETTINGS, 'history_bytes') or HISTORY_BYTES_DEFAULT)
  local is_first_count = bytes_all == bytes and count > #keys -- the history of an older version
  if bytes_all > bytes_max or is_first_count then
    -- include: _fit_history
    fit_history(count_max, bytes_max)
  end
end
