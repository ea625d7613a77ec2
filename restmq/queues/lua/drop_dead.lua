-- Drops dead letters for good, a bounded number per call.
-- ARGV: queue, clock, the key of one dead letter, or '' for all.
-- Returns {number dropped, number remaining}.
-- allow-oom
-- include: _prelude
-- include: _forget
local DROPPED_MAX = 500
local wanted = ARGV[3] == '' and call('ZRANGE', DEAD, 0, DROPPED_MAX - 1) or {ARGV[3]}
local dropped = 0
for _, key in ipairs(wanted) do
  if call('ZREM', DEAD, key) == 1 then
    forget({key})
    dropped = dropped + 1
  end
end
return {dropped, ARGV[3] == '' and call('ZCARD', DEAD) or 0}
