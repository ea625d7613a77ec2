-- include: _wake
-- WAITERS is a list of daemons' channels. A daemon waits there on behalf of its clients in long polls. It is told when
-- a message comes. A daemon that got enough messages no longer waits, and the next one is told of the rest. The channel
-- of a dead daemon stays until somebody tries to tell it, so the list expires if nobody adds to it.
local WAITERS_SECONDS = 600

local function register_waiter(waiter, is_satisfied)
  if waiter == '' then return end
  call('LREM', WAITERS, 0, waiter)
  if is_satisfied then
    wake()
  else
    call('LPUSH', WAITERS, waiter)
    call('EXPIRE', WAITERS, WAITERS_SECONDS)
  end
end
