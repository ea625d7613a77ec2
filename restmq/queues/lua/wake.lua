-- Tells one party that the queue may have a message for it.
-- ARGV: queue, clock.
-- allow-oom
-- include: _prelude
-- include: _wake
wake()
