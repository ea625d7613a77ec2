-- Returns messages that were taken for clients that have disconnected to the front of the queue, in their order (see
-- _front).
-- KEYS: totals
-- ARGV: queue, clock, then key, value, expiry in ms since 1970 or 0, record of deliveries or '', …, the oldest first.
-- allow-oom
-- include: _prelude
-- include: _front
-- include: _wake
local keys = {}
for i = 3, #ARGV, 4 do keys[#keys + 1] = ARGV[i] end
put_in_front(keys, function(i)
  local key, value, expires_ms, record = unpack(ARGV, 4 * i - 1, 4 * i + 2)
  if tonumber(expires_ms) > 0 then
    call('SET', key, value, 'PXAT', expires_ms)
  else
    call('SET', key, value)
  end
  if record ~= '' then call('HSET', DELIVERIES, key, record) end
  enqueue('RPUSH', key)
  call('HINCRBY', TOTALS, 'out', -1)
end)
wake()
