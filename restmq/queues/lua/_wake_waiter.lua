-- Tells one daemon with long polls that the queue may have a message for it.
local DEAD_WAITERS_MAX = 64

local function wake_waiter()
  for _ = 1, DEAD_WAITERS_MAX do
    local waiter = call('RPOPLPUSH', WAITERS, WAITERS)
    if not waiter then return end
    if call(PUBLISH, waiter, QUEUE) > 0 then return end
    call('LREM', WAITERS, 0, waiter)
  end
end
