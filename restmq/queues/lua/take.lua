-- Takes up to `count` messages from the front for good.
-- ARGV: queue, clock, count, the waiter's channel or '' (see _waiter).
-- Returns {state; the messages (see _columns), if there are any}.
-- allow-oom
-- include: _prelude
-- include: _overdue
-- include: _pop
-- include: _take_out
-- include: _columns
if overdue() then return {PROMOTE_FIRST} end
local count = tonumber(ARGV[3])
local popped = pop(count)
if popped.more and #popped.keys == 0 then return {MORE} end
if #popped.keys == 0 and scheduled_ms then call('SET', IDLE, '0', 'XX') end
if ARGV[4] ~= '' then
  -- include: _waiter
  register_waiter(ARGV[4], #popped.keys >= count)
end
local looks, records = take_out(popped)
return append_messages({popped.more and MORE or DONE}, popped, looks, nil, records)
