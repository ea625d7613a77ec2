-- Moves dead letters to the end of their queue, in the order of their deaths, as if never delivered. The origin of
-- those forwarded from another queue stays, but their hops are counted anew. A bounded number per call.
-- ARGV: queue, clock, the key of one dead letter, or '' for all.
-- Returns {number moved, number remaining}.
-- allow-oom
-- include: _prelude
-- include: _join
-- include: _age
-- include: _wake
local MOVED_MAX = 500
local wanted = ARGV[3] == '' and call('ZRANGE', DEAD, 0, MOVED_MAX - 1) or {ARGV[3]}
local moved = 0
for _, key in ipairs(wanted) do
  if call('ZREM', DEAD, key) == 1 then
    if moved == 0 then mark_time(number_of(key)) end
    local record = undelivered(record_of(key))
    if record.origin then record.origin.hops = nil end
    if join(key, record) then moved = moved + 1 end
  end
end
wake()
return {moved, ARGV[3] == '' and call('ZCARD', DEAD) or 0}
