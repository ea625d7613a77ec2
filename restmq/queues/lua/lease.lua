-- Leases up to `count` messages from the front: they are hidden until they are acked or given back, or the lease
-- expires.
-- ARGV: queue, clock, count, the waiter's channel or '' (see _waiter), lease in ms or 0 for the queue's setting,
-- receipt, lease in ms if the queue has no such setting.
-- Returns as take does.
-- allow-oom
-- include: _prelude
-- include: _overdue
-- include: _pop
-- include: _start_leases
if overdue() then return {PROMOTE_FIRST} end
local count = tonumber(ARGV[3])
local keys, values, expiries, more = pop(count)
if more and #keys == 0 then return {MORE} end
if #keys == 0 and scheduled_ms then call('SET', IDLE, '0', 'XX') end
local lease_ms = tonumber(ARGV[5])
if lease_ms == 0 then lease_ms = setting('lease') * 1000 end
if lease_ms == 0 then lease_ms = tonumber(ARGV[7]) end
local found = start_leases(keys, values, expiries, lease_ms, ARGV[6], '')
if ARGV[4] ~= '' then
  -- include: _waiter
  register_waiter(ARGV[4], #keys >= count)
end
return {more and MORE or DONE, unpack(found)}
