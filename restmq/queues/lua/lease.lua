-- Leases up to `count` messages off the front: they are hidden until they are acked, given back, or the time is over.
-- ARGV: queue, clock, count, the waiter's channel or '' (see _waiter), lease in ms or 0 for the queue's own, receipt, lease
-- in ms if the queue says nothing.
-- Returns as take does.
-- include: _prelude
-- include: _pop
-- include: _lease
-- include: _waiter
if overdue() then return {2} end
local count = tonumber(ARGV[3])
local keys, values, expiries, more = pop(count)
if more and #keys == 0 then return {1} end
local lease_ms = tonumber(ARGV[5])
if lease_ms == 0 then lease_ms = setting('lease') * 1000 end
if lease_ms == 0 then lease_ms = tonumber(ARGV[7]) end
local found = hold(keys, values, expiries, lease_ms, ARGV[6], '')
stand_in_line(ARGV[4], #keys >= count)
return {more and 1 or 0, unpack(found)}
