-- Adds messages to a FIFO queue, in order; otherwise as the script that this replaces. The header X-Message-Group names
-- their group; those without one are of one group.
-- durable
-- include: _prelude
-- include: _options
-- include: _append
-- include: _capacity
-- include: _wake
-- include: _schedule
local keys = {''}
-- include: _known
sweep(count)
local room = capacity()
if options.whole and room < count then return {'full'} end
if room < count then keys[1] = 'full' end

record = record ~= '' and cjson.decode(record) or {count = 0, sent = now_ms()}
local group = group_of(record)
record.group = group
record = cjson.encode(record)
for i = first_value, first_value + math.min(count, room) - 1 do
  keys[#keys + 1] = key_of(append(ARGV[i], record, group, expires_ms, due_ms))
end
if options.fingerprint then
  local known = string.format('%s %.0f %d', options.fingerprint, call('GET', NUMBER) - count + 1, count)
  call('SET', KEYS[#KEYS], known, 'PX', options.fingerprint_ms)
end
if due_ms > 0 then schedule(due_ms) else wake() end
return keys
