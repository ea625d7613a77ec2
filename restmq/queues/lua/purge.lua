-- Empties the queue. All its messages leave it in one step (what holds them is renamed); their values are then dropped a
-- bounded number a call, so that a queue of millions does not hold up everybody else. A purge that was cut off is
-- finished by the next one. The counter stays: message numbers never repeat.
-- KEYS: receipts, deliveries, history, history_values, times, channel; then four names for what is being dropped: the
-- list, and the sorted sets of leased, delayed and dead messages.
-- ARGV: queue, clock, 1 if the rename is still to be done, 1 if connected consumers are to be closed.
-- Returns {1 once the rename is done, how many messages left the queue with it, how many are still to be dropped}.
-- include: _prelude
-- include: _ready
-- include: _due
local AT_MOST = 5000
local sets = {LEASED, DELAYED, DEAD}
local dropping = {unpack(KEYS, #KEYS - 3)}
local renamed, purged = ARGV[3] == '0', 0

local function left()
  return call('LLEN', dropping[1]) + call('ZCARD', dropping[2]) + call('ZCARD', dropping[3]) + call('ZCARD', dropping[4])
end

if not renamed and left() == 0 then
  renamed, purged = true, length()
  if call('LLEN', READY) > 0 then call('RENAME', READY, dropping[1]) end
  for i, set in ipairs(sets) do
    purged = purged + call('ZCARD', set)
    if call('EXISTS', set) == 1 then call('RENAME', set, dropping[i + 1]) end
  end
  call('UNLINK', EXPIRING, RECEIPTS, DELIVERIES, HISTORY, HISTORY_VALUES, TIMES)
  call('ZREM', DUE, QUEUE)
  if ARGV[4] == '1' then call('PUBLISH', CHANNEL, 'close') end
end
local doomed = call('RPOP', dropping[1], AT_MOST) or {}
for i = 2, 4 do
  local popped = call('ZPOPMIN', dropping[i], AT_MOST)
  for j = 1, #popped, 2 do doomed[#doomed + 1] = popped[j] end
end
for _, key in ipairs(doomed) do call('UNLINK', key, key .. ':refcount') end
return {renamed and 1 or 0, purged, left()}
