-- include: _length
-- include: _forget
-- include: _setting
-- The number of messages that the queue's setting max_length allows beside those that it holds.
local SWEPT_EACH, SWEPT = 2, 100

local function capacity()
  local most = setting('max_length')
  if most == 0 then return math.huge end
  return most - length() - call('ZCARD', LEASED) - call('ZCARD', DELAYED)
end

-- Calls drop(ids) with the members of a sorted set whose times are over: of more than were added, so that they do not pile
-- up in a queue without consumers.
local drop_overdue = function(set, added, drop)
  for _ = 0, SWEPT_EACH * added, SWEPT do
    local ids = call('ZRANGEBYSCORE', set, '-inf', now_ms(), 'LIMIT', 0, SWEPT)
    if #ids > 0 then drop(ids) end
    if #ids < SWEPT then return end
  end
end

-- Drops expired messages.
local function sweep(added)
  drop_overdue(EXPIRING, added, function(expired)
    forget(expired)
    call('HINCRBY', TOTALS, 'expired', #expired)
  end)
end
