-- Leases up to `count` messages from the front: they are hidden until they are acked or given back, or the lease
-- expires.
-- ARGV: queue, clock, count, the waiter's channel or '' (see _waiter), lease in ms or 0 for the queue's setting,
-- receipt, lease in ms if the queue has no such setting.
-- Returns as take does.
-- allow-oom
-- include: _prelude
-- include: _overdue
if overdue() then return {PROMOTE_FIRST} end
local lease_ms = tonumber(ARGV[5])
if lease_ms == 0 then
  -- include: _lease_default
end
if ARGV[3] == '1' and ARGV[4] == '' then
  -- include: _lease_one
end
-- include: _pop
-- include: _start_leases
-- include: _columns
local count = tonumber(ARGV[3])
local popped = pop(count)
if popped.more and #popped.keys == 0 then return {MORE} end
if #popped.keys == 0 and scheduled_ms then call('SET', IDLE, '0', 'XX') end
local counts, receipts, records = start_leases(popped, lease_ms, ARGV[6], '')
if ARGV[4] ~= '' then
  -- include: _waiter
  register_waiter(ARGV[4], #popped.keys >= count)
end
return append_messages({popped.more and MORE or DONE}, popped, counts, receipts, records)
