-- wake(): tells one party that the queue may have a message for it: live consumers first, then a daemon with long
-- polls. PUBLISH returns the number of receivers, so this finds dead daemons and removes them.
local function wake()
  if call('LLEN', READY) == 0 then return end
  -- include: _wake_consumers
  -- include: _wake_waiter
  local values = call('MGET', STATUS, POLICY, HELD)
  if not wake_consumers(values[1], values[2], values[3]) then wake_waiter() end
end
