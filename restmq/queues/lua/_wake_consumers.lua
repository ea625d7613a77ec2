-- Tells one party with live consumers that the queue may have a message for it, by the values of STATUS, POLICY and HELD.
-- Returns whether there is one.
local DEAD_DAEMONS_MAX = 64

local function wake_consumers(status, policy, held)
  if status == '0' then return false end
  if policy ~= '2' then
    -- If it is held back, the end of the round publishes the backlog, see _flow.
    if held then return call('PUBSUB', NUMSUB, CHANNEL)[2] > 0 end
    return call(PUBLISH, CHANNEL, 'drain') > 0
  end
  for _ = 1, DEAD_DAEMONS_MAX do
    local daemon = call('ZRANGE', TURNS, 0, 0)[1]
    if not daemon then break end
    if call(PUBLISH, daemon, QUEUE) > 0 then return true end
    call('ZREM', TURNS, daemon)
  end
  return false
end
