-- include: _length
-- include: _forget
-- include: _setting
-- The number of messages that the queue's setting max_length allows beside those that it holds.
local SWEPT_EACH, SWEPT = 2, 10

local function capacity()
  local most = setting('max_length')
  if most == 0 then return math.huge end
  return most - length() - call('ZCARD', LEASED) - call('ZCARD', DELAYED)
end

-- Drops expired messages, more than are added, because they pile up in a queue without consumers.
local function sweep(added)
  local expired = call('ZRANGEBYSCORE', EXPIRING, '-inf', now_ms(), 'LIMIT', 0, SWEPT + SWEPT_EACH * added)
  if #expired == 0 then return end
  forget(expired)
  call('HINCRBY', TOTALS, 'expired', #expired)
end
