-- Puts messages that were taken for clients which are gone back to the front, in their order.
-- KEYS: totals
-- ARGV: queue, clock, then key, value, expiry in ms since 1970 or 0, record of deliveries or '', … the oldest first.
-- include: _prelude
-- include: _ready
-- include: _wake
for i = #ARGV - 3, 3, -4 do
  local key, expires_ms = ARGV[i], tonumber(ARGV[i + 2])
  if expires_ms > 0 then
    call('SET', key, ARGV[i + 1], 'PXAT', ARGV[i + 2])
  else
    call('SET', key, ARGV[i + 1])
  end
  if ARGV[i + 3] ~= '' then call('HSET', DELIVERIES, key, ARGV[i + 3]) end
  wait_in_line('RPUSH', key)
  call('HINCRBY', TOTALS, 'out', -1)
end
wake()
