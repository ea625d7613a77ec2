-- Deletes messages by receipt handles of SQS, each separately.
-- ARGV: queue, clock, then key, receipt, …
-- Returns for each 'deleted', 'old' or 'gone'.
-- allow-oom
-- durable
-- include: _prelude
-- include: _handle
-- include: _forget
-- include: _places
local deleted, states = {}, {}
for i = 3, #ARGV, 2 do
  local key = ARGV[i]
  local state = state_of(key, ARGV[i + 1])
  if state == 'leased' then
    end_leases({key})
  elseif state == 'returned' and call('ZREM', DELAYED, key) == 0 then
    leave(key)
  end
  if state == 'leased' or state == 'returned' then
    forget({key})
    deleted[#deleted + 1], state = key, 'deleted'
  end
  states[#states + 1] = state
end
if #deleted > 0 then
  call('HINCRBY', TOTALS, 'out', #deleted)
  call('HINCRBY', TOTALS, 'acked', #deleted)
end
return states
