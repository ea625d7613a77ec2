-- Reads the queue's history after the message that a consumer saw last. Publishes a marker on the channel in the same
-- step: messages before the marker are in the answer, messages after it are not. So the seam has neither a gap nor a
-- repeat.
-- KEYS: channel, history, history_values
-- ARGV: queue, clock, the key of the message seen last, the marker.
-- Returns {1 if the queue keeps a history, 1 if it does but no longer has that message, key, value, …}.
-- include: _prelude
call('PUBLISH', CHANNEL, 'mark ' .. ARGV[4])
if setting('history') == 0 then return {0, 0} end
local position = call('LPOS', HISTORY, ARGV[3])
local found = {1, position and 0 or 1}
local now = now_ms()
for _, key in ipairs(call('LRANGE', HISTORY, position and position + 1 or 0, -1)) do
  local entry = call('HGET', HISTORY_VALUES, key)
  local blank = string.find(entry, ' ', 1, true)
  local expires_ms = tonumber(string.sub(entry, 1, blank - 1))
  if expires_ms == 0 or expires_ms > now then
    found[#found + 1] = key
    found[#found + 1] = string.sub(entry, blank + 1)
  end
end
return found
