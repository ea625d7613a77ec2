-- As the script that this replaces: peeks at the first message that can be delivered.
-- allow-oom
-- include: _prelude
-- include: _overdue
-- include: _pop
-- include: _columns
if overdue() then return {PROMOTE_FIRST} end
local keys, values, expiries, more = pop(1)
local key = keys[1]
if not key then
  if scheduled_ms then call('SET', IDLE, '0', 'XX') end
  return {more and MORE or DONE}
end
call('ZADD', ORDERED, number_of(key), key)
local looks = call('INCR', key .. ':refcount')
if expiries[1] > 0 then call('PEXPIREAT', key .. ':refcount', string.format('%.0f', expiries[1])) end
return {DONE, unpack(as_columns(keys, values, {tostring(looks)}, expiries, {}, {call('HGET', DELIVERIES, key)}))}
