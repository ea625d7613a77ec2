-- Counts the messages that wait in the queue; those that have expired do not count.
-- ARGV: queue, clock.
-- include: _prelude
-- include: _ready
return length()
