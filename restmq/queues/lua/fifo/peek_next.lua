-- As the script that this replaces: peeks at the first message that can be delivered.
-- allow-oom
-- include: _prelude
-- include: _overdue
-- include: _pop
-- include: _columns
if overdue() then return {PROMOTE_FIRST} end
local popped = pop(1)
local key, expires_ms = popped.keys[1], popped.expiries[1]
if not key then
  if scheduled_ms then call('SET', IDLE, '0', 'XX') end
  return {popped.more and MORE or DONE}
end
call('ZADD', ORDERED, number_of(key), key)
local looks = call('INCR', key .. ':refcount')
if expires_ms > 0 then call('PEXPIREAT', key .. ':refcount', string.format('%.0f', expires_ms)) end
return append_messages({DONE}, popped, {looks}, nil, {call('HGET', DELIVERIES, key)})
