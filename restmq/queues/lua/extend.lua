-- Sets the end of a lease anew, counted from now.
-- ARGV: queue, clock, the message's key, its receipt, lease in ms.
-- Returns 1, or 0 if that lease is not in force.
-- allow-oom
-- include: _prelude
-- include: _lease
-- include: _schedule
local _, ends = leases(3, 4)
if not ends[1] then return 0 end
local due_ms = now_ms() + tonumber(ARGV[5])
call('ZADD', LEASED, due_ms, ARGV[3])
schedule(due_ms)
return 1
