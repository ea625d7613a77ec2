-- Tells one party that the queue may hold something for it.
-- ARGV: queue, clock.
-- include: _prelude
-- include: _wake
wake()
