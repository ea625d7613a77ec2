-- A daemon has delivered all messages before a round's marker (_flow.lua, rule 2). The last confirmation ends the round
-- and publishes the messages that were held back.
-- ARGV: queue, clock, the round, the window in bytes that the daemon grants, the daemon's channel; '' for its taps
-- (_tap.lua), for which nothing is held back.
-- Returns the state: HELD_BACK if messages wait for other daemons, MORE if the daemon must attend again.
-- allow-oom
-- include: _prelude
-- include: _started
-- include: _broadcasts
-- include: _backlog
local round, pending, grant = unpack(call('HMGET', FLOW, 'round', 'pending', 'grant'))
if round ~= ARGV[3] or not pending then
  if tonumber(call('HGET', FLOW, 'missing') or 0) > 0 then call('HINCRBY', FLOW, 'missing', -1) end
  return DONE
end
call('HSET', FLOW, 'grant', math.min(tonumber(grant or ARGV[4]), tonumber(ARGV[4])))
if call('HINCRBY', FLOW, 'pending', -1) > 0 then return call('EXISTS', HELD) == 1 and HELD_BACK or DONE end
local unconfirmed = end_round()
if unconfirmed >= STEP then begin_round(unconfirmed) end
if ARGV[5] == '' or call('LLEN', READY) == 0 or not started() or not broadcasts() then return DONE end
return publish_backlog(ARGV[5])
