-- include: _announce
-- include: _setting
-- publish(key, value, expires_ms, record): sends a message to all live consumers, on every daemon. Returns whether any
-- daemon received it, and whether another message may be published (_flow.lua, rule 4). A message that was received
-- goes into the queue's history, if it keeps one.
local function publish(key, value, expires_ms, record)
  if not announce(key, value, record, key) then return false, false end
  local count_max = setting('history')
  if count_max > 0 then
    -- include: _remember
    remember(key, value, expires_ms, record, count_max)
  end
  return true, count_sent(#value + #record + OVERHEAD)
end
