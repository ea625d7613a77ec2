-- DUE has, for each queue, the time at which a daemon must promote its messages: when the first of its leases or delays
-- ends, or earlier; or when a queue may end (see _idle). Every daemon has one timer, for the earliest of all times.
local scheduled_ms

local function overdue()
  scheduled_ms = call('ZSCORE', DUE, QUEUE)
  return scheduled_ms and tonumber(scheduled_ms) <= now_ms()
end
