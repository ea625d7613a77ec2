-- Counts the messages that wait in the queue; those that have expired do not count.
-- ARGV: queue.
-- include: _prelude
return length()
