-- Puts messages that a daemon took for consumers which are gone back to the front, in their order.
-- ARGV: queue, then key, value, expiry in ms since 1970 or 0, … the oldest first.
-- include: _prelude
-- include: _wake
for i = #ARGV - 2, 2, -3 do
  local expires_ms = tonumber(ARGV[i + 2])
  if expires_ms > 0 then
    call('SET', ARGV[i], ARGV[i + 1], 'PXAT', expires_ms)
    call('ZADD', EXPIRING, expires_ms, ARGV[i])
  else
    call('SET', ARGV[i], ARGV[i + 1])
  end
  call('RPUSH', READY, ARGV[i])
  call('HINCRBY', TOTALS, 'out', -1)
end
wake()
