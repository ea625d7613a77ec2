-- wake(): tells one party that the queue may have a message for it: live consumers first, then a daemon with long
-- polls. PUBLISH returns the number of receivers, so this finds dead daemons and removes them.
local DEAD_DAEMONS_MAX = 64

local function wake()
  if call('LLEN', READY) == 0 then return end
  if started() then
    if broadcasts() then
      if call('EXISTS', HELD) == 1 then -- the end of the round publishes the backlog, see _flow
        if call('PUBSUB', NUMSUB, CHANNEL)[2] > 0 then return end
      elseif call(PUBLISH, CHANNEL, 'drain') > 0 then
        return
      end
    else
      for _ = 1, DEAD_DAEMONS_MAX do
        local daemon = call('ZRANGE', TURNS, 0, 0)[1]
        if not daemon then break end
        if call(PUBLISH, daemon, QUEUE) > 0 then return end
        call('ZREM', TURNS, daemon)
      end
    end
  end
  -- include: _wake_waiter
  wake_waiter()
end
