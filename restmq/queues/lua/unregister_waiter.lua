-- Removes a waiter. If it was just told of a message that it will not take, the next party is told.
-- ARGV: queue, clock, the waiter's channel.
-- Returns nothing.
-- include: _prelude
-- include: _wake
call('LREM', WAITERS, 0, ARGV[3])
wake()
