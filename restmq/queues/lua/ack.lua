-- Removes leased messages for good, each separately.
-- ARGV: queue, clock, then key, receipt, …
-- Returns 1 for each, or 0 if that lease is not in force.
-- allow-oom
-- durable
-- include: _prelude
if #ARGV == 4 then
  -- include: _ack_one
end
-- include: _lease
-- include: _forget
local keys, ends, receipts = leases(3, #ARGV)
local acked, acked_receipts, results, seen = {}, {}, {}, {}
for i, key in ipairs(keys) do
  local is_acked = ends[i] and not seen[key]
  results[i] = is_acked and 1 or 0
  if is_acked then
    acked[#acked + 1], acked_receipts[#acked + 1], seen[key] = key, receipts[i], true
  end
end
if #acked > 0 then
  end_leases(acked, acked_receipts)
  forget(acked, false)
  local count = string.format('%d', #acked)
  call('HINCRBY', TOTALS, 'out', count)
  call('HINCRBY', TOTALS, 'acked', count)
end
return results
