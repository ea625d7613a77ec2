-- Gives leased messages back: to the front, in their order, or to the dead letters.
-- ARGV: queue, clock, 1 if they reached no consumer: then these deliveries do not count, and older messages at the
-- front stay before them (see _front); then key, receipt, …, the oldest first.
-- Returns {number of leases that were in force, the queue to forward dead letters to, or ''}.
-- allow-oom
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
  put_in_front(released, function(i) fail_deliveries({released[i]}, true, {}) end)
else
  fail_deliveries(released, false, {})
end
wake()
return {#released, must_forward() and call('HGET', SETTINGS, 'dead_letter') or ''}
