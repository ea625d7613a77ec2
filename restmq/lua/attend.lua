-- A daemon looks after its consumers of the queue: after it subscribed, when the queue has something for it, when its
-- consumers come, go, fill up or become ready again.
--
-- Broadcast: what waits is published, a bounded number a call. Messages that are added meanwhile join the backlog, so
-- order holds, and it does no harm if several daemons do this at once.
-- Round robin: the daemon takes what its ready consumers can hold, and then it is theirs. `turns` is a fair queue of the
-- daemons that have ready consumers: the lowest score is served next, and each message taken adds 1/weight to it.
-- ARGV: queue, the daemon's channel, its weight (how many of its consumers are ready), how many messages they can hold.
-- Returns {1 broadcast or 2 roundrobin, 1 if it must be called again, key, value, looks, expiry, …}.
-- include: _prelude
-- include: _pop
-- include: _wake
-- include: _publish
local PUBLISHED_AT_MOST = 200
local SHARE_AT_MOST = 16

local daemon, weight, room = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local function publish_backlog()
  if call('PUBSUB', 'NUMSUB', CHANNEL)[2] == 0 then
    wake()
    return {1, 0}
  end
  local popped, _, more = pop(PUBLISHED_AT_MOST)
  for i = 1, #popped, 4 do publish(popped[i], popped[i + 1], popped[i + 3]) end
  return {1, (more or call('LLEN', READY) > 0) and 1 or 0}
end

local function take_turn()
  if not call('ZSCORE', TURNS, daemon) then
    local lowest = call('ZRANGE', TURNS, 0, 0, 'WITHSCORES')[2]
    call('ZADD', TURNS, lowest or 0, daemon)
  end
  if call('ZCARD', TURNS) > 1 then room = math.min(room, SHARE_AT_MOST * weight) end
  local popped, taken, more = pop(room)
  call('ZINCRBY', TURNS, taken / weight, daemon)
  wake()
  return {2, more and 1 or 0, unpack(popped)}
end

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
