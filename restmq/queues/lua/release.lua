-- Gives leased messages back: to their places in the queue (see _order), at once or later, or to the dead letters.
-- ARGV: queue, clock, 1 if they reached no consumer, so that these deliveries do not count; ms until they come back, or ''
-- for the queue's settings; reason or ''; then key, receipt, …
-- Returns {number of leases that were in force, the queue to forward dead letters to, or ''}.
-- allow-oom
-- include: _prelude
-- include: _fail
-- include: _wake
local released, seen = {}, {}
for i = 6, #ARGV, 2 do
  local key = ARGV[i]
  if not seen[key] and holds(key, ARGV[i + 1]) then
    released[#released + 1], seen[key] = key, true
  end
end
fail_deliveries(released, {blameless = ARGV[3] == '1', delay_ms = tonumber(ARGV[4]), reason = ARGV[5]})
wake()
return {#released, must_forward() and call('HGET', SETTINGS, 'dead_letter') or ''}
