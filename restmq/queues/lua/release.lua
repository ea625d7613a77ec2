-- Gives leased messages back: to their places in the queue (see _order), at once or later, or to the dead letters.
-- ARGV: queue, clock, 1 if they reached no consumer, so that these deliveries do not count; ms until they come back, or ''
-- for the queue's settings; reason or ''; then key, receipt, …
-- Returns {number of leases that were in force, the queue to forward dead letters to, or ''}.
-- allow-oom
-- include: _prelude
-- include: _fail
-- include: _wake
local keys, ends = leases(6, #ARGV)
local released, seen = {}, {}
for i, key in ipairs(keys) do
  if ends[i] and not seen[key] then
    released[#released + 1], seen[key] = key, true
  end
end
fail_deliveries(released, {blameless = ARGV[3] == '1', delay_ms = tonumber(ARGV[4]), reason = ARGV[5]})
wake()
return {#released, forward_to() or ''}
