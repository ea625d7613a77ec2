-- Puts messages that a daemon took for consumers which are gone back to the front, in their order.
-- ARGV: queue, then key, value, … the oldest first.
-- include: _prelude
-- include: _wake
for i = #ARGV - 1, 2, -2 do
  call('SET', ARGV[i], ARGV[i + 1])
  call('RPUSH', READY, ARGV[i])
  call('HINCRBY', TOTALS, 'out', -1)
end
wake()
