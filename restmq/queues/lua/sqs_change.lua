-- Sets the ends of leases anew, by receipt handles of SQS, each separately.
-- ARGV: queue, clock, then key, receipt, lease in ms or 0 to give the message back, …
-- Returns {the queue to forward dead letters to, or ''; for each 'changed', 'not_in_flight', 'old' or 'gone'}.
-- allow-oom
-- include: _prelude
-- include: _handle
-- include: _fail
-- include: _wake
local states = {}
for i = 3, #ARGV, 3 do
  local key = ARGV[i]
  local state, lease_ms = state_of(key, ARGV[i + 1]), tonumber(ARGV[i + 2])
  if state == 'leased' and tonumber(call('ZSCORE', LEASED, key)) > now_ms() then
    state = 'changed'
    if lease_ms > 0 then
      call('ZADD', LEASED, now_ms() + lease_ms, key)
      schedule(now_ms() + lease_ms)
    else
      fail_deliveries({key}, {delay_ms = 0})
    end
  elseif state == 'leased' or state == 'returned' then
    state = 'not_in_flight'
  end
  states[#states + 1] = state
end
wake()
return {forward_to() or '', unpack(states)}
