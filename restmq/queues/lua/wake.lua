-- Tells one party that the queue may have a message for it.
-- ARGV: queue, clock.
-- include: _prelude
-- include: _wake
wake()
