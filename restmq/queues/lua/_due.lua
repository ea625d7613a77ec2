-- KEYS: leased, delayed, dead, due, due_channel
-- `DUE` says for each queue when somebody must look at it: when the nearest of its leases or delays is over, or earlier.
-- Every daemon has one timer for the earliest of all.
local function overdue()
  local at_ms = call('ZSCORE', DUE, QUEUE)
  return at_ms and tonumber(at_ms) <= now_ms()
end

-- The queue is to be looked at then at the latest; daemons are told where that is before all they know of.
local function look_at(at_ms)
  local known = call('ZSCORE', DUE, QUEUE)
  if known and tonumber(known) <= at_ms then return end
  local nearest = call('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2]
  call('ZADD', DUE, at_ms, QUEUE)
  if not nearest or at_ms < tonumber(nearest) then
    call('PUBLISH', DUE_CHANNEL, string.format('%.0f', math.max(0, at_ms - now_ms())))
  end
end

-- Dead letters that belong into another queue are moved at once by the daemon that ran the script. If it dies before, or
-- the other queue can't take them, they are looked at again after this time; nothing else waits for them.
local FORWARD_AGAIN_MS = 10000

local function dead_to_forward()
  return call('HGET', SETTINGS, 'dead_letter') and call('EXISTS', DEAD) == 1
end

local function look_at_the_dead()
  if dead_to_forward() then look_at(now_ms() + FORWARD_AGAIN_MS) end
end

local function look_at_nearest()
  local leased = call('ZRANGE', LEASED, 0, 0, 'WITHSCORES')[2]
  local delayed = call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')[2]
  local nearest = math.min(tonumber(leased or math.huge), tonumber(delayed or math.huge))
  call('ZREM', DUE, QUEUE)
  if nearest < math.huge then look_at(nearest) end
  look_at_the_dead()
end
