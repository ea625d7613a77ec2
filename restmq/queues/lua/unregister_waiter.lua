-- Removes a waiter. It may have been notified of a message that it will not take, so the next party is notified.
-- ARGV: queue, clock, the waiter's channel.
-- Returns nothing.
-- allow-oom
-- include: _prelude
-- include: _wake
call('LREM', WAITERS, 0, ARGV[3])
wake()
