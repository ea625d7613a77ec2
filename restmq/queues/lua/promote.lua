-- Promotes due messages: overdue leases fail, delayed messages become ready.
--
-- States of a message, and the key that has it in each; its value is at its own key in all of them:
--   ready    READY, a list: producers push at its left end, the front is its right end. EXPIRING has expiries.
--   delayed  DELAYED, scored by the end of the delay.
--   leased   LEASED, scored by the end of the lease; RECEIPTS.
--   dead     DEAD, scored by the time of death.
-- A FIFO queue keeps ready messages in other keys: see fifo/_groups.
-- Transitions:
--   add: to ready or delayed.           take, broadcast, ack, delete, purge: gone.
--   lease: ready to leased.             nack, release, overdue: leased to ready (its place), delayed (retry_delay) or
--                                       dead (max_deliveries).
--   delay over: delayed to ready (end;  redrive: dead to ready (end). forward: dead to ready in another queue (end).
--   its place if it was delivered).
-- Rules:
-- 1. A message is in exactly one of these keys. Each script moves it in one step.
-- 2. Nothing but this script ends a lease or a delay by time. DUE says when it must run (see _overdue). Scripts that
--    read the front of the queue ask overdue() first and then answer PROMOTE_FIRST. So no client sees a state that the
--    clock has ended, even if no daemon's timer has fired yet.
-- 3. A lease is in force only before its deadline, whether or not this script has run (leases(), see _lease).
-- 4. Messages whose leases end take their old places (see _order). A call handles the leases that ended last first:
--    then each call puts its messages before those of the call before, which is cheap.
-- 5. Delayed messages join the end, ordered by due time, then by number. Those that were delivered before, and wait for
--    the next attempt, take their old places.
-- 6. Work per call is bounded. A millisecond is never split between calls, so that rule 5 holds for messages that were
--    added together. The answer MORE asks for another call.
-- 7. An expired message is dropped and counted at its next transition.
-- A maintainer must keep rule 2 for every new script that reads READY, and must call schedule() for every new deadline.
--
-- ARGV: queue, clock, seconds after which queues without the setting `expires` end (see _idle), or 0.
-- Returns {state, the queue to forward dead letters to, or ''}.
-- allow-oom
-- include: _prelude
-- include: _fail
-- include: _join
-- include: _age
-- include: _reschedule
-- include: _wake
local ENOUGH, PROMOTED_MAX = 500, 5000

-- The first entries of a range of times, without splitting a millisecond. Returns their keys, their times by key, and
-- whether there may be more.
local function first_ones(command, set, from, to)
  local edge = call(command, set, from, to, 'WITHSCORES', 'LIMIT', ENOUGH - 1, 1)[2]
  local flat = call(command, set, from, edge or to, 'WITHSCORES', 'LIMIT', 0, PROMOTED_MAX)
  local keys, at_ms = {}, {}
  for i = 1, #flat, 2 do keys[#keys + 1], at_ms[flat[i]] = flat[i], tonumber(flat[i + 1]) end
  return keys, at_ms, edge ~= nil
end

local overdue_keys, ended_ms, more_overdue = first_ones('ZREVRANGEBYSCORE', LEASED, now_ms(), '-inf')
fail_deliveries(overdue_keys, {ended_ms = ended_ms})

local delayed_keys, due_ms, more_delayed = first_ones('ZRANGEBYSCORE', DELAYED, '-inf', now_ms())
local numbers = {}
for _, key in ipairs(delayed_keys) do numbers[key] = number_of(key) end
table.sort(delayed_keys, function(one, other) -- a sorted set sorts equal times by the text of the keys
  if due_ms[one] ~= due_ms[other] then return due_ms[one] < due_ms[other] end
  return numbers[one] < numbers[other]
end)
local back, orders, is_marked = {}, {}, false
for _, key in ipairs(delayed_keys) do
  local record = record_of(key)
  call('ZREM', DELAYED, key)
  local lives
  if record.count > 0 then
    lives = becomes_ready(key)
    if lives then back[#back + 1], orders[key] = key, order_of(key, record) end
  else
    if not is_marked then mark_time(numbers[key]) end
    is_marked, lives = true, join(key, record)
  end
  if not lives then call('HINCRBY', TOTALS, 'expired', 1) end
end
sort_by_order(back, orders)
come_back(back, orders)

local idle = call('GET', IDLE)
if idle then
  -- include: _check_idle
  check_idle(idle, ARGV[3])
end
reschedule()
wake()
return {(more_overdue or more_delayed) and MORE or DONE, forward_to() or ''}
