-- The short way of a lease: one message, as most calls ask for, in a queue where none expires. It makes the same changes as
-- pop() and start_leases(), without their functions and tables, which cost as much as these calls. An entry that is no
-- message goes back and on to the usual way, which drops it.
if call('EXISTS', EXPIRING) == 0 then
  local key = call('RPOP', READY)
  if not key then
    if scheduled_ms then call('SET', IDLE, '0', 'XX') end
    return {DONE}
  end
  local value = redis.pcall('GET', key)
  if type(value) == 'string' then
    -- Redis turns numbers into text slowly.
    local now, due_ms = string.format('%d', now_ms()), now_ms() + lease_ms
    local receipt, record, count = ARGV[6] .. '.1', call('HGET', DELIVERIES, key), nil
    if record then
      -- include: _deliver_again
      record, count = deliver_again(record)
    else
      record = '{"count":1,"first":' .. now .. ',"last":' .. now .. '}'
    end
    call('ZADD', LEASED, string.format('%d', due_ms), key)
    call('HSET', RECEIPTS, key, receipt)
    call('HSET', DELIVERIES, key, record)
    call('HINCRBY', TOTALS, 'leased', '1')
    if not scheduled_ms or tonumber(scheduled_ms) > due_ms then
      -- include: _schedule
      schedule(due_ms)
    end
    -- As append_messages() does.
    if count then return {DONE, 13, key, value, count, receipt, record} end
    return {DONE, 12, key, value, receipt, record}
  end
  call('RPUSH', READY, key)
end
