-- Leased messages are given back: to the front, in their order, or to the dead letters.
-- ARGV: queue, clock, 1 if they reached nobody: then their deliveries don't count as failed, and those in front that are
-- older stay before them (see _front); then key, receipt, … the oldest first.
-- Returns {how many of these leases were in force, the queue for dead letters if there are some to go there, else ''}.
-- include: _prelude
-- include: _lease
-- include: _front
-- include: _wake
local blameless, released = ARGV[3] == '1', {}
for i = 4, #ARGV, 2 do
  if holds(ARGV[i], ARGV[i + 1]) then
    end_lease(ARGV[i])
    released[#released + 1] = ARGV[i]
  end
end
if blameless then
  put_in_front(released, function(i) fail({released[i]}, true, {}) end)
else
  fail(released, false, {})
end
wake()
return {#released, dead_to_forward() and call('HGET', SETTINGS, 'dead_letter') or ''}
