-- include: _schedule
-- include: _dead
-- Dead letters for another queue are forwarded at once by the daemon that ran the script. The queue is scheduled too,
-- in case that daemon dies or the other queue cannot take them.
local FORWARD_AGAIN_MS = 10000

-- The queue to which dead letters must be forwarded; false if there are none.
local function forward_to()
  local other = call('HGET', SETTINGS, 'dead_letter')
  local first = other and call('ZRANGE', DEAD, 0, 0, 'WITHSCORES')[2]
  if not first or tonumber(first) >= RESTING_MS then return false end
  call('ZADD', DEAD_LETTERS, 0, other .. '\n' .. QUEUE)  -- a version that keeps no index may have set it
  return other
end

local function schedule_forwarding()
  if forward_to() then schedule(now_ms() + FORWARD_AGAIN_MS) end
end
