-- A daemon serves its live consumers of the queue.
--
-- 1. A daemon calls this after it subscribed to the queue's channel, when it is notified of messages for it, and when
--    its consumers connect, disconnect, fill up or become ready again. It makes one call at a time.
-- 2. The answer's state says when to call again: MORE at once, PROMOTE_FIRST after a promotion, HELD_BACK after a second
--    or earlier if the daemon is notified, DONE only when the daemon is notified.
-- Broadcast:
-- 3. The backlog is published on the queue's channel, as much as the window allows (_flow.lua), and a bounded number of
--    messages per call.
-- 4. If the window allows more, a notice on the daemon's own channel follows the messages. Otherwise the end of the
--    round publishes the rest (confirm.lua).
-- 5. Messages that are added meanwhile join the backlog (add.lua), so order holds. Several daemons may publish at once.
-- Round robin:
-- 6. The daemon takes as many messages as its ready consumers can hold; they are taken for good, or leased to the
--    daemon.
-- 7. TURNS is a fair queue of the daemons that have ready consumers. The lowest score is served next. Each message adds
--    1/weight to the score, so shares are in proportion to the number of ready consumers.
-- 8. A daemon without ready consumers (weight 0) leaves TURNS. The call that ends a turn wakes the next daemon.
-- A maintainer must keep: a daemon that is woken and takes nothing wakes the next one. Otherwise messages wait for the
-- heartbeat.
--
-- ARGV: queue, clock, the daemon's channel, its weight (number of ready consumers), number of messages that they can
-- hold, lease in ms or 0, receipt, the window in bytes that it grants, or 0 if it has no consumers, 1 to
-- publish a marker first or 0.
-- Returns {1 broadcast or 2 roundrobin; state; the messages (see _columns), if there are any}.
-- allow-oom
-- include: _prelude
-- include: _started
-- include: _broadcasts
-- include: _overdue
-- include: _pop
-- include: _take_out
-- include: _start_leases
-- include: _columns
-- include: _wake
local SHARE_MAX = 16

local daemon, weight, capacity = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local lease_ms, receipt, window = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local BROADCAST, ROUNDROBIN = 1, 2

local function take_turn()
  if not call('ZSCORE', TURNS, daemon) then
    local lowest = call('ZRANGE', TURNS, 0, 0, 'WITHSCORES')[2]
    call('ZADD', TURNS, lowest or 0, daemon)
  end
  if call('ZCARD', TURNS) > 1 then capacity = math.min(capacity, SHARE_MAX * weight) end
  local popped = pop(capacity)
  call('ZINCRBY', TURNS, #popped.keys / weight, daemon)
  local counts, receipts, records
  if lease_ms > 0 then
    counts, receipts, records = start_leases(popped, lease_ms, receipt, daemon)
  else
    counts, records = take_out(popped)
  end
  wake()
  return append_messages({ROUNDROBIN, popped.more and MORE or DONE}, popped, counts, receipts, records)
end

if ARGV[9] == '1' then
  -- include: _marker
  publish_marker('-')
  call('SET', IDLE, '0', 'XX')
end
if overdue() then return {broadcasts() and BROADCAST or ROUNDROBIN, PROMOTE_FIRST} end
if broadcasts() then
  if not started() then return {BROADCAST, DONE} end
  if window > 0 then
    if call('LLEN', READY) == 0 then return {BROADCAST, DONE} end
    -- include: _backlog
    if call('HSETNX', FLOW, 'window', window) == 1 then call('PEXPIRE', FLOW, KEPT_MS) end
    return {BROADCAST, publish_backlog(daemon)}
  end
  wake()
  return {BROADCAST, DONE}
end
if weight == 0 then
  call('ZREM', TURNS, daemon)
  wake()
  return {ROUNDROBIN, DONE}
end
if started() then return take_turn() end
return {ROUNDROBIN, DONE}
