-- Gives leased messages back: to their places in the queue (see _order), or to the dead letters.
-- ARGV: queue, clock, 1 if they reached no consumer, so that these deliveries do not count; then key, receipt, …
-- Returns {number of leases that were in force, the queue to forward dead letters to, or ''}.
-- allow-oom
-- include: _prelude
-- include: _fail
-- include: _wake
local released, seen = {}, {}
for i = 4, #ARGV, 2 do
  local key = ARGV[i]
  if not seen[key] and holds(key, ARGV[i + 1]) then
    released[#released + 1], seen[key] = key, true
  end
end
fail_deliveries(released, ARGV[3] == '1', {})
wake()
return {#released, must_forward() and call('HGET', SETTINGS, 'dead_letter') or ''}
