-- Takes up to `count` messages off the front for good. Where there is none, the waiter, if one is named, is told on its
-- channel when one comes.
-- ARGV: queue, count, the waiter's channel or ''.
-- Returns {1 if there may be more behind expired ones, key, value, looks, expiry, …}.
-- include: _prelude
-- include: _pop
local popped, taken, more = pop(tonumber(ARGV[2]))
if taken == 0 and not more and ARGV[3] ~= '' then
  call('LREM', WAITERS, 0, ARGV[3])
  call('LPUSH', WAITERS, ARGV[3])
end
return {more and 1 or 0, unpack(popped)}
