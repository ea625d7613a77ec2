-- Deletes one message, wherever it stands in the queue.
-- ARGV: queue, the message's key.
-- Returns 1 if it was there, 0 if not (never was, was taken, has expired).
-- include: _prelude
local key = ARGV[2]
local there = call('EXISTS', key)
if call('LREM', READY, -1, key) == 0 then return 0 end
forget(key)
return there
