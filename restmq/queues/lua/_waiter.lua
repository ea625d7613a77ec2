-- include: _wake
-- WAITERS is a list of the channels of daemons with clients in long polls. When a message comes, one daemon is
-- notified. A daemon that got enough messages leaves the list, and the next daemon is notified of the rest. The channel
-- of a dead daemon stays until a script tries to notify it, so the list expires if no daemon is added.
local WAITERS_SECONDS = 600

local function register_waiter(waiter, is_satisfied)
  call('LREM', WAITERS, 0, waiter)
  if is_satisfied then
    wake()
  else
    call('LPUSH', WAITERS, waiter)
    call('EXPIRE', WAITERS, WAITERS_SECONDS)
  end
end
