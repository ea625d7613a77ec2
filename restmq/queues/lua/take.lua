-- Takes up to `count` messages off the front for good.
-- ARGV: queue, clock, count, the waiter's channel or '' (see _waiter).
-- Returns {1 if there may be more, as it stopped at a bound (see _pop), 2 if what is due must come first, else 0; the
-- messages as columns, see _ready, if there are any}.
-- include: _prelude
-- include: _due
-- include: _pop
-- include: _waiter
if overdue() then return {2} end
local count = tonumber(ARGV[3])
local keys, values, expiries, more = pop(count)
if more and #keys == 0 then return {1} end
stand_in_line(ARGV[4], #keys >= count)
return {more and 1 or 0, unpack(take_out(keys, values, expiries))}
