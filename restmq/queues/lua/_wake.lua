-- KEYS: ready, channel, turns, waiters
-- wake(): the queue may hold something: tells one party that can take it. Connected consumers come first, then whoever
-- waits in a long poll. PUBLISH counts who heard it, so a daemon that died is found out here and struck off.
local DEAD_AT_MOST = 64

local function wake()
  if call('LLEN', READY) == 0 then return end
  if started() then
    if broadcasts() then
      if call('PUBLISH', CHANNEL, 'drain') > 0 then return end
    else
      for _ = 1, DEAD_AT_MOST do
        local daemon = call('ZRANGE', TURNS, 0, 0)[1]
        if not daemon then break end
        if call('PUBLISH', daemon, QUEUE) > 0 then return end
        call('ZREM', TURNS, daemon)
      end
    end
  end
  for _ = 1, DEAD_AT_MOST do
    local waiter = call('RPOPLPUSH', WAITERS, WAITERS)
    if not waiter then return end
    if call('PUBLISH', waiter, QUEUE) > 0 then return end
    call('LREM', WAITERS, 0, waiter)
  end
end
