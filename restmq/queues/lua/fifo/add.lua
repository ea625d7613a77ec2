-- Adds messages to a FIFO queue, in order; otherwise as the script that this replaces. The header X-Message-Group names
-- their group; those without one are of one group.
-- durable
-- include: _prelude
-- include: _append
-- include: _capacity
-- include: _wake
-- include: _schedule
local ttl_ms, delay_ms, all_or_nothing = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local fingerprint, fingerprint_ms, given = ARGV[6], ARGV[7], ARGV[8]
local FIRST = 10
local count, keys, now = #ARGV - FIRST + 1, {''}, now_ms()

if fingerprint ~= '' then
  local seen, first, seen_count = string.match(call('GET', KEYS[#KEYS]) or '', '^(%S+) (%d+) (%d+)$')
  if seen and seen ~= fingerprint then return {'conflict'} end
  if seen then
    for number = tonumber(first), first + seen_count - 1 do keys[#keys + 1] = key_of(number) end
    return keys
  end
end
sweep(count)
local room = capacity()
if all_or_nothing and room < count then return {'full'} end
if room < count then keys[1] = 'full' end

local record = given ~= '' and cjson.decode(given) or {count = 0, sent = now}
local group = group_of(record)
record.group = group
record = cjson.encode(record)
local expires_ms, due_ms = ttl_ms > 0 and now + ttl_ms or 0, delay_ms > 0 and now + delay_ms or 0
for i = FIRST, FIRST + math.min(count, room) - 1 do
  keys[#keys + 1] = key_of(append(ARGV[i], record, group, expires_ms, due_ms))
end
if fingerprint ~= '' then
  local first = call('GET', NUMBER) - count + 1
  call('SET', KEYS[#KEYS], string.format('%s %.0f %d', fingerprint, first, count), 'PX', fingerprint_ms)
end
if due_ms > 0 then schedule(due_ms) else wake() end
return keys
