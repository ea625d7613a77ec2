-- Peeks at messages of one place and changes nothing, but drops expired dead letters. Skips expired messages and entries
-- without a value. Stops early when the answer has become large.
-- ARGV: queue, clock, the place: 'next' (in the order of delivery), 'newest' (the newest first), 'leased' or 'delayed'
-- (by the end of the lease or delay) or 'dead' (in the order of deaths; those that rest, see _letters, come last); number
-- to skip, maximum number, maximum bytes of a value, or 0 for whole values.
-- Returns {number of messages in this place, then key, beginning of the value, its size in bytes, end of the lease or
-- delay or time of death in ms since 1970 or 0, looks, record of deliveries or '', …}.
-- allow-oom
-- include: _prelude
-- include: _expiry
-- include: _died
-- include: _length
-- include: _places
local BYTES_MAX = 16777216
local place, first, count, value_max = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local last = first + count - 1
local now = now_ms()
local sets = {leased = LEASED, delayed = DELAYED, dead = DEAD}
local keys, at_ms = {}, {}
local function when(score) return place == 'dead' and died_ms(score) or string.match(score, '^%d+') end

if sets[place] then
  local flat = call('ZRANGE', sets[place], first, last, 'WITHSCORES')
  for i = 1, #flat, 2 do keys[#keys + 1], at_ms[flat[i]] = flat[i], when(flat[i + 1]) end
elseif place == 'newest' then
  keys = from_end(first, last)
else
  keys = from_front(first, last)
end

local found, bytes = {0}, 0
for _, key in ipairs(keys) do
  local expires_ms = call('PEXPIRETIME', key)
  local is_value = call('TYPE', key).ok == 'string' -- an entry added by hand may name a key of any type
  local lives = is_value and (expires_ms == -1 or expires_ms > now)
  if place == 'dead' and not lives then
    expiry_if_alive(key) -- drops it if it has expired
    call('ZREM', DEAD, key)
  elseif lives and bytes < BYTES_MAX then
    local looks, record = call('GET', key .. ':refcount') or '0', call('HGET', DELIVERIES, key) or ''
    local value, size = call('GETRANGE', key, 0, value_max - 1), call('STRLEN', key)
    bytes = bytes + #value
    for _, part in ipairs({key, value, size, at_ms[key] or '0', looks, record}) do found[#found + 1] = part end
  end
end
found[1] = sets[place] and call('ZCARD', sets[place]) or length()
return found
