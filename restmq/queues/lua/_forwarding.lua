-- include: _schedule
-- include: _dead
-- Dead letters for another queue are forwarded at once by the daemon that ran the script. The queue is scheduled too,
-- in case that daemon dies or the other queue cannot take them.
local FORWARD_AGAIN_MS = 10000

local function must_forward()
  if not call('HGET', SETTINGS, 'dead_letter') then return false end
  local first = call('ZRANGE', DEAD, 0, 0, 'WITHSCORES')[2]
  return first and tonumber(first) < RESTING_MS
end

local function schedule_forwarding()
  if must_forward() then schedule(now_ms() + FORWARD_AGAIN_MS) end
end
