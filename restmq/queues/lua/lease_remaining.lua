-- Returns the remaining time of leases.
-- ARGV: queue, clock, then key, receipt, …
-- Returns for each the ms until it ends, or 0 if it has ended.
-- include: _prelude
-- include: _lease
local _, ends = leases(3, #ARGV)
for i, end_ms in ipairs(ends) do ends[i] = end_ms and end_ms - now_ms() or 0 end
return ends
