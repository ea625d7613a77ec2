-- Counts the ready messages that have not expired.
-- ARGV: queue, clock.
-- include: _prelude
-- include: _length
return length()
