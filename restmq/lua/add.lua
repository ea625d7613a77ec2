-- Adds messages, in order. Where the queue is started, broadcasts and has no backlog, a message goes straight to the
-- consumers that listen: if any heard it, that was its delivery and nothing is stored. Else it waits in the queue.
-- ARGV: queue, ttl in ms or 0, then the values.
-- Returns the messages' keys.
-- include: _prelude
-- include: _wake
-- include: _publish
local ttl_ms = tonumber(ARGV[2])
local expires_ms = ttl_ms > 0 and now_ms() + ttl_ms or 0
local live = started() and broadcasts() and call('LLEN', READY) == 0
local keys, stored = {}, false

call('SADD', QUEUES, QUEUE)
for i = 3, #ARGV do
  local key = QUEUE .. ':' .. call('INCR', NUMBER)
  keys[#keys + 1] = key
  if live and publish(key, ARGV[i], expires_ms) then
    call('HINCRBY', TOTALS, 'out', 1)
  else
    live, stored = false, true
    if ttl_ms > 0 then
      call('SET', key, ARGV[i], 'PXAT', expires_ms)
      call('ZADD', EXPIRING, expires_ms, key)
    else
      call('SET', key, ARGV[i])
    end
    call('LPUSH', READY, key)
  end
end
if stored then wake() end
return keys
