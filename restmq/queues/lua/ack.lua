-- Leased messages are done with, and leave for good; each on its own.
-- ARGV: queue, clock, then key, receipt, …
-- Returns for each 1, or 0 if no such lease is in force.
-- durable
-- include: _prelude
-- include: _lease
local acked, done = {}, {}
for i = 3, #ARGV, 2 do
  local key = ARGV[i]
  if holds(key, ARGV[i + 1]) then
    end_lease(key)
    acked[#acked + 1], done[#done + 1] = key, 1
  else
    done[#done + 1] = 0
  end
end
if #acked > 0 then
  forget(acked)
  call('HINCRBY', TOTALS, 'out', #acked)
  call('HINCRBY', TOTALS, 'acked', #acked)
end
return done
