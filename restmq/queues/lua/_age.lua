-- include: _oldest
-- KEYS: ready, expiring, times
-- How old the oldest message is, without a time beside each message: TIMES has a mark `number, time` now and then, at
-- most one a second, and fewer the longer the backlog reaches back, so that there are never more than a few thousand.
-- Numbers and times rise together: who comes to others late with an older number gets no mark.
local MARK_EVERY_MS, MARKS_PER_AGE = 1000, 200

-- Called for a message that is about to join the end of a queue, or the first of several: of this queue, or of another one
-- whose keys are given.
local function mark_time(number, ready, expiring, times)
  ready, expiring, times = ready or READY, expiring or EXPIRING, times or TIMES
  local now = now_ms()
  local last, last_number = unpack(call('ZRANGE', times, -1, -1, 'WITHSCORES'))
  if last and now - tonumber(last) < MARK_EVERY_MS and call('EXISTS', ready) == 1 then return end
  local oldest = oldest_mark(ready, expiring, times, now)
  if oldest then
    call('ZREMRANGEBYSCORE', times, '-inf', '(' .. call('ZSCORE', times, oldest))
    if now - tonumber(last) < (now - tonumber(oldest)) / MARKS_PER_AGE or tonumber(last_number) > number then return end
  else
    call('DEL', times)
  end
  call('ZADD', times, number, string.format('%.0f', now))
end
