-- include: _wake_waiter
-- wake(): tells one daemon with long polls that the queue may have a message for it. A FIFO queue has no live consumers.
local function wake()
  if call('EXISTS', GROUPS) == 1 then wake_waiter() end
end
