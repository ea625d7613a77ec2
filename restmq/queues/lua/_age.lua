-- include: _oldest
-- The age of the oldest message, without a time per message. TIMES is a sorted set of marks: a message's number, scored
-- by its time. There is at most one mark a second, and fewer the older the backlog is, so at most a few thousand.
-- Numbers and times rise together: a message that joins others late, with an older number, gets no mark.
local MARK_EVERY_MS, MARKS_PER_AGE = 1000, 200

-- Called before a message joins the end of a queue, or before the first of several does. The keys of another queue may
-- be given.
local function mark_time(number, ready, expiring, times)
  ready, expiring, times = ready or READY, expiring or EXPIRING, times or TIMES
  local now, last, last_number, oldest = now_ms(), nil, nil, nil
  if call('EXISTS', ready) == 1 then
    last, last_number = unpack(call('ZRANGE', times, -1, -1, 'WITHSCORES'))
    if last and now - tonumber(last) < MARK_EVERY_MS then return end
    oldest = oldest_mark(ready, expiring, times, now)
  end
  if oldest then
    call('ZREMRANGEBYSCORE', times, '-inf', '(' .. call('ZSCORE', times, oldest))
    if now - tonumber(last) < (now - tonumber(oldest)) / MARKS_PER_AGE or tonumber(last_number) > number then return end
  else
    call('DEL', times)
  end
  call('ZADD', times, number, string.format('%.0f', now))
end
