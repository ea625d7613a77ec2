-- A daemon looks after its consumers of the queue: after it subscribed, when the queue has something for it, when its
-- consumers come, go, fill up or become ready again.
--
-- Broadcast: what waits is published, a bounded number of messages and bytes a call. If more is left, the daemon is told
-- behind them, on its channel, so it knows that it has heard them all before it calls again. Messages that are added
-- meanwhile join the backlog, so order holds, and it does no harm if several daemons do this at once.
-- Round robin: the daemon takes what its ready consumers can hold, and then it is theirs, or leased to them. `turns` is a
-- fair queue of the daemons that have ready consumers: the lowest score is served next, and each message taken adds
-- 1/weight to it.
-- ARGV: queue, clock, the daemon's channel, its weight (how many of its consumers are ready), how many messages they can
-- hold, lease in ms or 0, receipt, how many bytes of a backlog to publish, or 0 if it has no consumers.
-- Returns {1 broadcast or 2 roundrobin; 1 if it must be called again, 2 if what is due must come first, else 0; the
-- messages as columns, see _ready, if there are any}.
-- include: _prelude
-- include: _pop
-- include: _lease
-- include: _wake
-- include: _publish
local PUBLISHED_AT_MOST = 200
local SHARE_AT_MOST = 16

local daemon, weight, room = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local lease_ms, receipt, backlog_bytes = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])

local function publish_backlog()
  if backlog_bytes == 0 or call('PUBSUB', 'NUMSUB', CHANNEL)[2] == 0 then
    wake()
    return {1, 0}
  end
  local keys, values, expiries = pop(PUBLISHED_AT_MOST, backlog_bytes)
  take_out(keys, values, {unpack(expiries)})
  for i, key in ipairs(keys) do publish(key, values[i], expiries[i]) end
  if call('LLEN', READY) == 0 then return {1, 0} end
  if #keys > 0 and call('PUBLISH', daemon, QUEUE) > 0 then return {1, 0} end
  return {1, 1}
end

local function take_turn()
  if not call('ZSCORE', TURNS, daemon) then
    local lowest = call('ZRANGE', TURNS, 0, 0, 'WITHSCORES')[2]
    call('ZADD', TURNS, lowest or 0, daemon)
  end
  if call('ZCARD', TURNS) > 1 then room = math.min(room, SHARE_AT_MOST * weight) end
  local keys, values, expiries, more = pop(room)
  call('ZINCRBY', TURNS, #keys / weight, daemon)
  local found
  if lease_ms > 0 then
    found = hold(keys, values, expiries, lease_ms, receipt, daemon)
  else
    found = take_out(keys, values, expiries)
  end
  wake()
  return {2, more and 1 or 0, unpack(found)}
end

if overdue() then return {broadcasts() and 1 or 2, 2} end
if broadcasts() then
  if started() then return publish_backlog() end
  return {1, 0}
end
if weight == 0 then
  call('ZREM', TURNS, daemon)
  wake()
  return {2, 0}
end
if started() then return take_turn() end
return {2, 0}
