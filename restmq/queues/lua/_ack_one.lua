-- The short way of an ack: one message, as in most calls, that no live consumer holds. It makes the same changes as the
-- usual way, without its functions and tables, which cost as much as these calls.
local key = ARGV[3]
if call('HGET', RECEIPTS, key) == ARGV[4] and tonumber(call('ZSCORE', LEASED, key) or 0) > now_ms() then
  call('ZREM', LEASED, key)
  call('HDEL', RECEIPTS, key)
  call('DEL', key, key .. ':refcount')
  call('HDEL', DELIVERIES, key)
  call('HINCRBY', TOTALS, 'out', '1')
  call('HINCRBY', TOTALS, 'acked', '1')
  return {1}
end
