-- Returns the remaining time of leases.
-- ARGV: queue, clock, then key, receipt, …
-- Returns for each the ms until it ends, or 0 if it has ended.
-- include: _prelude
-- include: _lease
local remaining_ms, now = {}, now_ms()
for i = 3, #ARGV, 2 do
  remaining_ms[#remaining_ms + 1] = holds(ARGV[i], ARGV[i + 1]) and call('ZSCORE', LEASED, ARGV[i]) - now or 0
end
return remaining_ms
