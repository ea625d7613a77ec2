-- Messages that are ready, by their places in the queue.
-- The keys from one place to another, the next message first. Places count from 0.
local function from_front(first, last)
  local keys, front = {}, call('LRANGE', READY, -1 - last, -1 - first)
  for i = #front, 1, -1 do keys[#keys + 1] = front[i] end
  return keys
end

-- The same, the newest message first.
local function from_end(first, last) return call('LRANGE', READY, first, last) end

-- Takes a ready message off the queue. Returns whether it was there.
local function leave(key) return call('LREM', READY, -1, key) == 1 end
