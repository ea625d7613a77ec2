-- include: _wake
-- A daemon asks on behalf of clients that wait, and names its channel. Where it did not get enough it is told when
-- something comes; where it did, it no longer waits, and the next one is told of what is left. A daemon that died leaves
-- its channel behind until somebody tries to tell it; so the list ends by itself when nobody adds to it any more.
local KEPT_SECONDS = 600

local function stand_in_line(waiter, satisfied)
  if waiter == '' then return end
  call('LREM', WAITERS, 0, waiter)
  if satisfied then
    wake()
  else
    call('LPUSH', WAITERS, waiter)
    call('EXPIRE', WAITERS, KEPT_SECONDS)
  end
end
