-- Leased messages are given back: to the front, in their order, or to the dead letters.
-- ARGV: queue, clock, 1 if their deliveries don't count as failed, then key, receipt, … the oldest first.
-- Returns {how many of these leases were in force, the queue for dead letters if there are some to go there, else ''}.
-- include: _prelude
-- include: _lease
-- include: _wake
local released = {}
for i = 4, #ARGV, 2 do
  if holds(ARGV[i], ARGV[i + 1]) then
    end_lease(ARGV[i])
    released[#released + 1] = ARGV[i]
  end
end
fail(released, ARGV[3] == '1', {})
wake()
return {#released, dead_to_forward() and call('HGET', SETTINGS, 'dead_letter') or ''}
