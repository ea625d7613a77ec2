-- How long leases last still.
-- ARGV: queue, clock, then key, receipt, …
-- Returns for each the ms until it ends, or 0 if it is over.
-- include: _prelude
-- include: _lease
local left, now = {}, now_ms()
for i = 3, #ARGV, 2 do
  left[#left + 1] = holds(ARGV[i], ARGV[i + 1]) and call('ZSCORE', LEASED, ARGV[i]) - now or 0
end
return left
