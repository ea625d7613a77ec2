-- What a consumer missed: all of the queue's history after the message that it saw last. In the same instant a mark goes
-- out on the channel: what comes before it is in the answer, what comes after it is not, so the seam has neither a gap
-- nor a repeat.
-- KEYS: channel, history, history_values
-- ARGV: queue, clock, the key of the message seen last, the mark.
-- Returns {1 if the queue keeps a history, 1 if it does but no longer holds that message, key, value, …}.
-- include: _prelude
call('PUBLISH', CHANNEL, 'mark ' .. ARGV[4])
if setting('history') == 0 then return {0, 0} end
local position = call('LPOS', HISTORY, ARGV[3])
local missed = {1, position and 0 or 1}
local now = now_ms()
for _, key in ipairs(call('LRANGE', HISTORY, position and position + 1 or 0, -1)) do
  local entry = call('HGET', HISTORY_VALUES, key)
  local blank = string.find(entry, ' ', 1, true)
  local expires_ms = tonumber(string.sub(entry, 1, blank - 1))
  if expires_ms == 0 or expires_ms > now then
    missed[#missed + 1] = key
    missed[#missed + 1] = string.sub(entry, blank + 1)
  end
end
return missed
