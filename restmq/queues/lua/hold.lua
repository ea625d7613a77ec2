-- A daemon waits for its consumers: the open round gets more time (_flow.lua, rule 5).
-- ARGV: queue, clock, the time in ms (HELD_MS_MAX at most).
-- allow-oom
-- include: _prelude
-- include: _rounds
if call('HEXISTS', FLOW, 'pending') == 1 then
  call('HSET', FLOW, 'since', string.format('%.0f', now_ms() + ARGV[3] - HELD_MS))
  call('PEXPIRE', FLOW, KEPT_MS)
  if call('EXISTS', HELD) == 1 then hold_back(ARGV[3]) end
end
