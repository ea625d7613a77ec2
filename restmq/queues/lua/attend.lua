-- A daemon serves its live consumers of the queue.
--
-- 1. A daemon calls this after it subscribed to the queue's channel, when it is told that the queue has something for
--    it, and when its consumers connect, disconnect, fill up or become ready again. It makes one call at a time.
-- 2. The answer's state says when to call again: MORE at once, PROMOTE_FIRST after a promotion, DONE when told to.
-- Broadcast:
-- 3. The backlog is published on the queue's channel, a bounded number of messages and bytes per call.
-- 4. If some is left, the daemon is told so on its own channel, behind the messages, on the same connection. So it has
--    received them all before it calls again, and never has more than one call's messages to come.
-- 5. Messages that are added meanwhile join the backlog (add.lua), so order holds. Several daemons may publish at once.
-- Round robin:
-- 6. The daemon takes as many messages as its ready consumers can hold; they are taken for good, or leased to the
--    daemon.
-- 7. TURNS is a fair queue of the daemons that have ready consumers. The lowest score is served next. Each message adds
--    1/weight to the score, so shares are in proportion to the number of ready consumers.
-- 8. A daemon without ready consumers (weight 0) leaves TURNS. Whoever ends a turn wakes the next daemon.
-- A maintainer must keep: whoever is woken and takes nothing wakes the next one, or messages wait for the daemon's
-- heartbeat.
--
-- ARGV: queue, clock, the daemon's channel, its weight (number of ready consumers), number of messages that they can
-- hold, lease in ms or 0, receipt, maximum bytes of a backlog to publish, or 0 if it has no consumers.
-- Returns {1 broadcast or 2 roundrobin; state; the messages as columns (see _ready), if there are any}.
-- include: _prelude
-- include: _pop
-- include: _lease
-- include: _wake
-- include: _publish
local PUBLISHED_MAX = 200
local SHARE_MAX = 16

local daemon, weight, capacity = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local lease_ms, receipt, backlog_bytes = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local BROADCAST, ROUNDROBIN = 1, 2

local function publish_backlog()
  if backlog_bytes == 0 or call('PUBSUB', 'NUMSUB', CHANNEL)[2] == 0 then
    wake()
    return {BROADCAST, DONE}
  end
  local keys, values, expiries = pop(PUBLISHED_MAX, backlog_bytes)
  take_out(keys, values, {unpack(expiries)})
  for i, key in ipairs(keys) do publish(key, values[i], expiries[i]) end
  if call('LLEN', READY) == 0 then return {BROADCAST, DONE} end
  if #keys > 0 and call('PUBLISH', daemon, QUEUE) > 0 then return {BROADCAST, DONE} end
  return {BROADCAST, MORE}
end

local function take_turn()
  if not call('ZSCORE', TURNS, daemon) then
    local lowest = call('ZRANGE', TURNS, 0, 0, 'WITHSCORES')[2]
    call('ZADD', TURNS, lowest or 0, daemon)
  end
  if call('ZCARD', TURNS) > 1 then capacity = math.min(capacity, SHARE_MAX * weight) end
  local keys, values, expiries, more = pop(capacity)
  call('ZINCRBY', TURNS, #keys / weight, daemon)
  local found
  if lease_ms > 0 then
    found = start_leases(keys, values, expiries, lease_ms, receipt, daemon)
  else
    found = take_out(keys, values, expiries)
  end
  wake()
  return {ROUNDROBIN, more and MORE or DONE, unpack(found)}
end

if overdue() then return {broadcasts() and BROADCAST or ROUNDROBIN, PROMOTE_FIRST} end
if broadcasts() then
  if started() then return publish_backlog() end
  return {BROADCAST, DONE}
end
if weight == 0 then
  call('ZREM', TURNS, daemon)
  wake()
  return {ROUNDROBIN, DONE}
end
if started() then return take_turn() end
return {ROUNDROBIN, DONE}
