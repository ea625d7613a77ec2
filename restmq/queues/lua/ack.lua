-- Removes leased messages for good, each separately.
-- ARGV: queue, clock, then key, receipt, …
-- Returns 1 for each, or 0 if that lease is not in force.
-- allow-oom
-- durable
-- include: _prelude
-- include: _lease
-- include: _forget
local acked, results = {}, {}
for i = 3, #ARGV, 2 do
  local key = ARGV[i]
  if holds(key, ARGV[i + 1]) then
    end_lease(key)
    acked[#acked + 1], results[#results + 1] = key, 1
  else
    results[#results + 1] = 0
  end
end
if #acked > 0 then
  forget(acked)
  call('HINCRBY', TOTALS, 'out', #acked)
  call('HINCRBY', TOTALS, 'acked', #acked)
end
return results
