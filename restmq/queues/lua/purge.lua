-- Empties the queue. All its messages leave it in one step, because their list and sets are renamed. Their values are
-- then dropped, a bounded number per call, so that a queue of millions does not block Redis. The next purge finishes
-- one that was cut off. The counter stays: message numbers never repeat.
-- KEYS: more at the end, the names to rename to: of the list, and of the sorted sets of leased, delayed, dead and
-- (FIFO) ordered messages.
-- With `remove`, the queue itself goes in the same step.
-- ARGV: queue, clock, 1 if the rename is still to be done, 1 to close live consumers, 1 to remove the queue.
-- Returns {1 once the rename is done, number of messages that left the queue with it, number still to be dropped, number
-- of other keys that were removed}.
-- allow-oom
-- include: _prelude
-- include: _length
-- include: _reschedule
local DROPPED_MAX = 5000
local sets = {LEASED, DELAYED, DEAD, ORDERED}
local dropping = {unpack(KEYS, #KEYS - #sets)}
local renamed, purged, removed = ARGV[3] == '0', 0, 0

local function remaining()
  local count = call('LLEN', dropping[1])
  for i = 2, #dropping do count = count + call('ZCARD', dropping[i]) end
  return count
end

if not renamed and remaining() == 0 then
  renamed, purged = true, length() - call('ZCARD', ORDERED) -- which is among the sets
  if call('LLEN', READY) > 0 then call('RENAME', READY, dropping[1]) end
  for i, set in ipairs(sets) do
    purged = purged + call('ZCARD', set)
    if call('EXISTS', set) == 1 then call('RENAME', set, dropping[i + 1]) end
  end
  call('UNLINK', EXPIRING, RECEIPTS, DELIVERIES, HISTORY, HISTORY_VALUES, TIMES, MARKED, GROUPED, GROUPS, LOCKED)
  if ARGV[5] == '1' then
    -- include: _remove
    removed = remove()
  else
    reschedule()
  end
  if ARGV[4] == '1' then call(PUBLISH, CHANNEL, 'close') end
end
local dropped = call('RPOP', dropping[1], DROPPED_MAX) or {}
for i = 2, #dropping do
  local popped = call('ZPOPMIN', dropping[i], DROPPED_MAX)
  for j = 1, #popped, 2 do dropped[#dropped + 1] = popped[j] end
end
for _, key in ipairs(dropped) do call('UNLINK', key, key .. ':refcount') end
return {renamed and 1 or 0, purged, remaining(), removed}
