-- Takes up to `count` messages from the front for good.
-- ARGV: queue, clock, count, the waiter's channel or '' (see _waiter).
-- Returns {state; the messages as columns (see _columns), if there are any}.
-- allow-oom
-- include: _prelude
-- include: _overdue
-- include: _pop
-- include: _take_out
if overdue() then return {PROMOTE_FIRST} end
local count = tonumber(ARGV[3])
local keys, values, expiries, more = pop(count)
if more and #keys == 0 then return {MORE} end
if #keys == 0 and scheduled_ms then call('SET', IDLE, '0', 'XX') end
if ARGV[4] ~= '' then
  -- include: _waiter
  register_waiter(ARGV[4], #keys >= count)
end
return {more and MORE or DONE, unpack(take_out(keys, values, expiries))}
