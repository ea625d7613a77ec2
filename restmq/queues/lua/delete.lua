-- Deletes one message, in any state.
-- ARGV: queue, clock, the message's key.
-- Returns 1 if it existed, 0 if not (it never existed, was taken, or has expired).
-- allow-oom
-- include: _prelude
-- include: _lease
-- include: _expiry
-- include: _places
local key = ARGV[3]
local removed = call('ZREM', DELAYED, key) + call('ZREM', DEAD, key)
if call('ZSCORE', LEASED, key) then
  end_leases({key}) -- before its record is dropped, which has its group
  removed = removed + 1
end
local alive = expiry_if_alive(key)
if removed == 0 and not leave(key) then return 0 end
forget({key})
return alive and 1 or 0
