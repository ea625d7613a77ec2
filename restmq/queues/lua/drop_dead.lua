-- Dead letters are dropped for good. A bounded number a call.
-- ARGV: queue, clock, the key of the one that is meant, or '' for all.
-- Returns {how many were dropped, how many are left}.
-- include: _prelude
-- include: _lease
local AT_MOST = 500
local wanted = ARGV[3] == '' and call('ZRANGE', DEAD, 0, AT_MOST - 1) or {ARGV[3]}
local dropped = 0
for _, key in ipairs(wanted) do
  if call('ZREM', DEAD, key) == 1 then
    forget({key})
    dropped = dropped + 1
  end
end
return {dropped, ARGV[3] == '' and call('ZCARD', DEAD) or 0}
