-- include: _oldest
-- The number of ready messages of one of several queues, and the time at which its first one was sent (see _oldest) or nil.
-- A FIFO queue has them in another key (see fifo/_groups).
local FIFO_READY = '.fifo:queue'

local function ready_of(ready, expiring, times, now)
  local count, first = call('LLEN', ready), nil
  local names = string.sub(ready, -#FIFO_READY) == FIFO_READY and string.sub(ready, 1, -#'queue' - 1)
  if names then
    first = call('ZRANGE', names .. 'ordered', 0, 0)[1]
    count = count + call('ZCARD', names .. 'ordered')
  end
  if count > 0 then count = count - call('ZCOUNT', expiring, '-inf', now) end
  if count <= 0 then return 0, nil end
  if first then return count, cjson.decode(call('HGET', names .. 'deliveries', first)).sent end
  return count, oldest_mark(ready, expiring, times, now)
end
