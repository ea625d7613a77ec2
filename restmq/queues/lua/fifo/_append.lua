-- include: _groups
-- include: _copy
-- append(value, record, group, expires_ms, due_ms): adds a message to the end of its group; the times are in ms since
-- 1970 or 0. Returns its number.
local function append(value, record, group, expires_ms, due_ms)
  local number = call('INCR', NUMBER)
  local key = key_of(number)
  if expires_ms > 0 then
    call('SET', key, value, 'PXAT', string.format('%.0f', expires_ms))
  else
    call('SET', key, value)
  end
  call('HSET', DELIVERIES, key, record)
  take_place(key, group)
  if due_ms > 0 then
    call('ZREM', ORDERED, key)
    call('ZADD', DELAYED, due_ms, key)
  elseif expires_ms > 0 then
    call('ZADD', EXPIRING, expires_ms, key)
  end
  settle(group)
  copy(key, value, record)
  return number
end
