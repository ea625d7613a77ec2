-- Empties the queue. All its messages leave it in one step (the list is renamed); their values are then dropped a
-- bounded number a call, so that a queue of millions does not hold up everybody else. A purge that was cut off is
-- finished by the next one. The counter stays: message numbers never repeat.
-- KEYS: those of the queue, then the list of what is being dropped.
-- ARGV: queue, 1 if the rename is still to be done, 1 if connected consumers are to be closed.
-- Returns {1 once the rename is done, how many messages left the queue with it, how many are still to be dropped}.
-- include: _prelude
local DROPPED_AT_MOST = 5000
local DROPPING = KEYS[#KEYS]
local renamed, purged = ARGV[2] == '0', 0

if not renamed and call('LLEN', DROPPING) == 0 then
  renamed, purged = true, length()
  if call('LLEN', READY) > 0 then call('RENAME', READY, DROPPING) end
  call('UNLINK', EXPIRING, HISTORY, HISTORY_VALUES)
  if ARGV[3] == '1' then call('PUBLISH', CHANNEL, 'close') end
end
for _, key in ipairs(call('RPOP', DROPPING, DROPPED_AT_MOST) or {}) do
  call('UNLINK', key, key .. ':refcount')
end
return {renamed and 1 or 0, purged, call('LLEN', DROPPING)}
