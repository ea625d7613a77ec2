-- KEYS: ready, times
-- How old the oldest message is, without a time beside each message: TIMES has a mark `number, time` now and then, at
-- most one a second, and fewer the longer the backlog reaches back, so that there are never more than a few thousand.
local MARK_EVERY_MS, MARKS_PER_AGE = 1000, 200

local function number_of(key) return tonumber(string.match(key, ':(%d+)$') or 0) end

-- The last mark that is not younger than the queue's front: its time, or nil.
local function oldest_mark()
  local front = call('LINDEX', READY, -1)
  return front and call('ZREVRANGEBYSCORE', TIMES, number_of(front), '-inf', 'LIMIT', 0, 1)[1]
end

-- Called for a message that is about to be stored.
local function mark_time(number)
  local now = now_ms()
  local last = call('ZRANGE', TIMES, -1, -1)[1]
  if last and now - tonumber(last) < MARK_EVERY_MS and call('EXISTS', READY) == 1 then return end
  local oldest = oldest_mark()
  if oldest then
    call('ZREMRANGEBYSCORE', TIMES, '-inf', '(' .. call('ZSCORE', TIMES, oldest))
    if now - tonumber(last) < (now - tonumber(oldest)) / MARKS_PER_AGE then return end
  else
    call('DEL', TIMES)
  end
  call('ZADD', TIMES, number, string.format('%.0f', now))
end
