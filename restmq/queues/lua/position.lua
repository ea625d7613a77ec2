-- Returns the last key of the queue's history or '', and the number of the last message that was broadcast; nothing if
-- the queue is round robin.
-- ARGV: queue, clock.
-- include: _prelude
-- include: _broadcasts
-- include: _marker
if not broadcasts() then return {} end
return {call('LINDEX', HISTORY, -1) or '', last_published()}
