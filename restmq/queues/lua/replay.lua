-- Reads one page of the queue's history, after a message. The last page publishes a marker on the channel in the same
-- step: a message is in the pages if it was broadcast before the marker, and comes behind the marker if not. So there
-- is neither a gap nor a repeat.
-- ARGV: queue, clock, the key to begin after, the marker, maximum bytes of a page, 1 if this continues a page or 0.
-- Returns {1 if the queue broadcasts or 0; 1 if it keeps a history or 0; 1 if messages after the key are lost or 0;
-- state, MORE for another page; the key of the last message read; key, value, record or '', …}.
-- include: _prelude
-- include: _setting
-- include: _broadcasts
-- include: _marker
local ENTRIES_MAX = 1000
local after, marker, bytes_max, continues = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6] == '1'
local is_broadcast = broadcasts() and 1 or 0

if setting('history') == 0 then
  publish_marker(marker)
  return {is_broadcast, 0, continues and 1 or 0, DONE, after}
end
local position = call('LPOS', HISTORY, after, 'RANK', -1)
local first = position and position + 1 or 0
if not position then
  -- If a failover undid the message, its number is beyond those in the history, which precede it. If the data was lost,
  -- numbers began at 1 again.
  local function number_of(key) return tonumber(string.match(key or '', ':(%d+)$') or 0) end
  local newest = call('LINDEX', HISTORY, -1)
  local last_number, number = number_of(newest), number_of(after)
  if number > last_number and number < 2 * last_number then first, after = call('LLEN', HISTORY), newest end
end
local keys = call('LRANGE', HISTORY, first, first + ENTRIES_MAX - 1)
local found, bytes, now = {is_broadcast, 1, position and 0 or 1, DONE, after}, 0, now_ms()
for i, key in ipairs(keys) do
  local entry = call('HGET', HISTORY_VALUES, key)
  local expires_ms, value = string.match(entry, '^(%d+) (.*)$')
  if expires_ms == '0' or tonumber(expires_ms) > now then
    local record = call('HGET', HISTORY_VALUES, key .. RECORD) or ''
    found[#found + 1], found[#found + 2], found[#found + 3] = key, value, record
    bytes = bytes + #value + #record
  end
  found[5] = key
  if bytes >= bytes_max or i == ENTRIES_MAX then
    if first + i < call('LLEN', HISTORY) then found[4] = MORE end
    break
  end
end
if found[4] == DONE then publish_marker(marker) end
return found
