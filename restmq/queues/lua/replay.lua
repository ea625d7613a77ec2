-- Reads one page of the queue's history, after a message. The last page publishes a marker on the channel in the same
-- step: a message is in the pages if it was broadcast before the marker, and comes behind the marker if not. So there
-- is neither a gap nor a repeat.
-- ARGV: queue, clock, the key to begin after, the marker, maximum bytes of a page, 1 if this continues a page or 0.
-- Returns {1 if the queue broadcasts or 0; 1 if it keeps a history or 0; 1 if messages after the key are lost or 0;
-- state, MORE for another page; the key of the last message read; 1 if there are records or 0; key, value and, if there
-- are records, record or '', …}.
-- include: _prelude
-- include: _setting
-- include: _broadcasts
-- include: _marker
-- Values are read several at a time: one, two, four, so that few are read in vain if they are large.
local ENTRIES_MAX, READ_AT_ONCE = 1000, 64
local after, marker, bytes_max, continues = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6] == '1'
local is_broadcast = broadcasts() and 1 or 0

if setting('history') == 0 then
  publish_marker(marker)
  return {is_broadcast, 0, continues and 1 or 0, DONE, after, 0}
end
local position = call('LPOS', HISTORY, after, 'RANK', -1)
local first = position and position + 1 or 0
if not position then
  -- If a failover undid the message, its number is beyond those in the history, which precede it. If the data was lost,
  -- numbers began at 1 again.
  local newest = call('LINDEX', HISTORY, -1)
  local last_number, number = number_of(newest or ''), number_of(after)
  if number > last_number and number < 2 * last_number then first, after = call('LLEN', HISTORY), newest end
end
local keys = call('LRANGE', HISTORY, first, first + ENTRIES_MAX - 1)
local has_records = #keys > 0 and history_has_records()
local found, bytes, now = {is_broadcast, 1, position and 0 or 1, DONE, after, has_records and 1 or 0}, 0, now_ms()
local read, at_once, size = 0, 1, #found
while read < #keys and bytes < bytes_max do
  local chunk = {unpack(keys, read + 1, math.min(#keys, read + at_once))}
  local entries, records = call('HMGET', HISTORY_VALUES, unpack(chunk)), {}
  if has_records then
    for i, key in ipairs(chunk) do records[i] = key .. RECORD end
    records = call('HMGET', HISTORY_VALUES, unpack(records))
  end
  for i, entry in ipairs(entries) do
    local blank = string.find(entry, ' ', 1, true)
    -- An expiry with one digit is 0, i.e. never.
    if blank == 2 or tonumber(string.sub(entry, 1, blank - 1)) > now then
      local record = records[i] or ''
      found[size + 1], found[size + 2], size = chunk[i], string.sub(entry, blank + 1), size + 2
      bytes = bytes + #entry + #record
      if has_records then found[size + 1], size = record, size + 1 end
    end
    read = read + 1
    if bytes >= bytes_max then break end
  end
  at_once = math.min(2 * at_once, READ_AT_ONCE)
end
if read > 0 then found[5] = keys[read] end
if first + read < call('LLEN', HISTORY) then found[4] = MORE end
if found[4] == DONE then publish_marker(marker) end
return found
