-- Promotes due messages: overdue leases fail, delayed messages become ready.
--
-- States of a message, and the key that has it in each; its value is at its own key in all of them:
--   ready    READY, a list: producers push at its left end, the front is its right end. EXPIRING has expiries.
--   delayed  DELAYED, scored by the end of the delay.
--   leased   LEASED, scored by the end of the lease; RECEIPTS.
--   dead     DEAD, scored by the time of death.
-- Transitions:
--   add: to ready or delayed.           take, broadcast, ack, delete, purge: gone.
--   lease: ready to leased.             nack, release, lease overdue: leased to ready (front) or dead (max_deliveries).
--   delay over: delayed to ready (end). redrive: dead to ready (end). forward: dead to ready in another queue (end).
-- Rules:
-- 1. A message is in exactly one of these keys. Each script moves it in one step.
-- 2. Nothing but this script ends a lease or a delay by time. DUE says when it must run (see _due). Scripts that read
--    the front of the queue ask overdue() first and then answer PROMOTE_FIRST. So no client sees a state that the clock
--    has ended, even if no daemon's timer has fired yet.
-- 3. A lease is in force only before its deadline, whether or not this script has run (holds(), see _lease).
-- 4. Messages whose leases end return to the front in the order of their numbers, before all that are there. A call
--    handles the leases that ended last first, and each call puts its messages before those of the one before, so that
--    one order comes out whatever the number of calls.
-- 5. Delayed messages join the end, ordered by due time, then by number.
-- 6. Work per call is bounded. A millisecond is never split between calls, as rules 4 and 5 sort what was leased or
--    added together. The answer MORE asks for another call.
-- 7. An expired message is dropped and counted at its next transition.
-- A maintainer must keep rule 2 for every new script that reads READY, and must call schedule() for every new deadline.
--
-- ARGV: queue, clock.
-- Returns {state, the queue to forward dead letters to, or ''}.
-- allow-oom
-- include: _prelude
-- include: _lease
-- include: _wake
-- include: _age
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

-- Sorts keys by these times, if given, then by number. A sorted set sorts equal times by the text of the keys.
local function sort(keys, at_ms)
  local number = {}
  for _, key in ipairs(keys) do number[key] = number_of(key) end
  table.sort(keys, function(a, b)
    if at_ms and at_ms[a] ~= at_ms[b] then return at_ms[a] < at_ms[b] end
    return number[a] < number[b]
  end)
end

local overdue_keys, ended_ms, more_overdue = first_ones('ZREVRANGEBYSCORE', LEASED, now_ms(), '-inf')
sort(overdue_keys)
for _, key in ipairs(overdue_keys) do end_lease(key) end
fail_deliveries(overdue_keys, false, ended_ms)

local delayed_keys, due_ms, more_delayed = first_ones('ZRANGEBYSCORE', DELAYED, '-inf', now_ms())
sort(delayed_keys, due_ms)
if #delayed_keys > 0 then mark_time(number_of(delayed_keys[1])) end
for _, key in ipairs(delayed_keys) do
  call('ZREM', DELAYED, key)
  if not enqueue('LPUSH', key) then call('HINCRBY', TOTALS, 'expired', 1) end
end

reschedule()
wake()
return {(more_overdue or more_delayed) and MORE or DONE, must_forward() and call('HGET', SETTINGS, 'dead_letter') or ''}
