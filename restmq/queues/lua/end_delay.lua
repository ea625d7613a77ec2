-- Ends the delay of a message: it becomes due now, and promote makes it ready.
-- ARGV: queue, clock, the message's key.
-- Returns 1 if the message was delayed, 0 if not.
-- allow-oom
-- include: _prelude
-- include: _schedule
local key = ARGV[3]
local due_ms = call('ZSCORE', DELAYED, key)
if not due_ms then return 0 end
if tonumber(due_ms) > now_ms() then call('ZADD', DELAYED, now_ms(), key) end
schedule(now_ms())
return 1
