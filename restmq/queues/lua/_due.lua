-- KEYS: leased, delayed, dead, due, due_channel
-- DUE has, for each queue, the time at which a daemon must promote its messages: when the first of its leases or delays
-- ends, or earlier. Every daemon has one timer, for the earliest of all times.
local function overdue()
  local at_ms = call('ZSCORE', DUE, QUEUE)
  return at_ms and tonumber(at_ms) <= now_ms()
end

-- Makes the queue due at this time at the latest. Tells the daemons if no other queue is due earlier.
local function schedule(at_ms)
  local scheduled_ms = call('ZSCORE', DUE, QUEUE)
  if scheduled_ms and tonumber(scheduled_ms) <= at_ms then return end
  local nearest_ms = call('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2]
  call('ZADD', DUE, at_ms, QUEUE)
  if not nearest_ms or at_ms < tonumber(nearest_ms) then
    call('PUBLISH', DUE_CHANNEL, string.format('%.0f', math.max(0, at_ms - now_ms())))
  end
end

-- Dead letters for another queue are forwarded at once by the daemon that ran the script. The queue is scheduled too,
-- in case that daemon dies or the other queue cannot take them.
local FORWARD_AGAIN_MS = 10000

local function must_forward()
  return call('HGET', SETTINGS, 'dead_letter') and call('EXISTS', DEAD) == 1
end

local function schedule_forwarding()
  if must_forward() then schedule(now_ms() + FORWARD_AGAIN_MS) end
end

-- Schedules the queue anew, after its messages changed in any way.
local function reschedule()
  local leased_ms = call('ZRANGE', LEASED, 0, 0, 'WITHSCORES')[2]
  local delayed_ms = call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')[2]
  local nearest_ms = math.min(tonumber(leased_ms or math.huge), tonumber(delayed_ms or math.huge))
  call('ZREM', DUE, QUEUE)
  if nearest_ms < math.huge then schedule(nearest_ms) end
  schedule_forwarding()
end
