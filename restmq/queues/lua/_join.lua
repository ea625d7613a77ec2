-- include: _order
-- include: _expiry
-- join(key, record): puts a delayed message or a dead letter at the end of the queue, and notes its place (see _order).
-- Returns false if it has expired.
local joined = 0

local function join(key, record)
  local time = call('TIME') -- the same for the whole script
  record.order = string.format('%.0f %.0f', tonumber(call('GET', NUMBER) or 0), time[1] * 1000000 + time[2] + joined)
  joined = joined + 1
  if not becomes_ready(key) then return false end
  call('HSET', DELIVERIES, key, cjson.encode(record))
  call('LPUSH', READY, key)
  return true
end
