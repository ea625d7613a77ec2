-- include: _number
-- The approximate time at which the oldest message of a queue was sent, by the marks in TIMES (see _age). For a message
-- that was delayed or a dead letter: the time at which it joined the queue.
local EXPIRED_MAX = 1000

-- The first message that has not expired; nil also if more than EXPIRED_MAX expired ones precede it. `expiring` is false
-- if none expires.
local function first_living(ready, expiring, now)
  local front = call('LINDEX', ready, -1)
  if not front or not expiring then return front end
  local function lives(expires_ms) return not expires_ms or tonumber(expires_ms) > now end
  if lives(call('ZSCORE', expiring, front)) then return front end
  local keys = call('LRANGE', ready, -EXPIRED_MAX, -1)
  local expiries = call('ZMSCORE', expiring, unpack(keys))
  for i = #keys, 1, -1 do
    if lives(expiries[i]) then return keys[i] end
  end
end

-- The time of the last mark that is not younger than the queue's first message, or nil. A message that came back may be
-- older than all marks; then the time of the first mark, which is later than the message.
local function oldest_mark(ready, expiring, times, now)
  local front = first_living(ready, expiring, now)
  return front and (call('ZREVRANGEBYSCORE', times, number_of(front), '-inf', 'LIMIT', 0, 1)[1]
    or call('ZRANGE', times, 0, 0)[1])
end
