-- DUE has, for each queue, the time at which a daemon must promote its messages: when the first of its leases or delays
-- ends, or earlier. Every daemon has one timer, for the earliest of all times.
local function overdue()
  local at_ms = call('ZSCORE', DUE, QUEUE)
  return at_ms and tonumber(at_ms) <= now_ms()
end
