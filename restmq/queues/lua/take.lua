-- Takes up to `count` messages from the front for good.
-- ARGV: queue, clock, count, the waiter's channel or '' (see _waiter).
-- Returns {state; the messages as columns (see _ready), if there are any}.
-- allow-oom
-- include: _prelude
-- include: _overdue
-- include: _pop
-- include: _waiter
if overdue() then return {PROMOTE_FIRST} end
local count = tonumber(ARGV[3])
local keys, values, expiries, more = pop(count)
if more and #keys == 0 then return {MORE} end
register_waiter(ARGV[4], #keys >= count)
return {more and MORE or DONE, unpack(take_out(keys, values, expiries))}
