-- A leased message is done with, and leaves for good.
-- ARGV: queue, clock, the message's key, its receipt.
-- Returns 1, or 0 if no such lease is in force.
-- durable
-- include: _prelude
-- include: _lease
local key = ARGV[3]
if not holds(key, ARGV[4]) then return 0 end
end_lease(key)
forget({key})
call('HINCRBY', TOTALS, 'out', 1)
call('HINCRBY', TOTALS, 'acked', 1)
return 1
