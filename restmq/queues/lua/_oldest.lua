-- include: _number
-- When the oldest message of a queue was sent or, if it was delayed or a dead letter, joined the queue; by the marks of
-- time (see _age) and therefore about.
local EXPIRED_AT_MOST = 1000

-- The first that has not expired; nil also where it stands behind too many that have.
local function first_living(ready, expiring, now)
  local front = call('LINDEX', ready, -1)
  local function lives(expires_ms) return not expires_ms or tonumber(expires_ms) > now end
  if not front or lives(call('ZSCORE', expiring, front)) then return front end
  local keys = call('LRANGE', ready, -EXPIRED_AT_MOST, -1)
  local expiries = call('ZMSCORE', expiring, unpack(keys))
  for i = #keys, 1, -1 do
    if lives(expiries[i]) then return keys[i] end
  end
end

-- The last mark that is not younger than the queue's first message: its time, or nil. One that came back may be older than
-- all marks: then the first of them, as it was sent before that.
local function oldest_mark(ready, expiring, times, now)
  local front = first_living(ready, expiring, now)
  return front and (call('ZREVRANGEBYSCORE', times, number_of(front), '-inf', 'LIMIT', 0, 1)[1]
    or call('ZRANGE', times, 0, 0)[1])
end
