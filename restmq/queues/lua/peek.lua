-- Looks at messages in one place, and touches nothing. Those that have expired, and entries that name no value, are passed over.
-- ARGV: queue, clock, the place: 'next' (to be delivered, the next first), 'newest', 'leased', 'delayed' (both by when
-- that ends) or 'dead' (those that died first coming first); how many to pass over, how many at most, how many bytes of a
-- value at most.
-- Returns {how many there are in this place, then key, the value's beginning, its size in bytes, when the lease or the
-- delay ends or the message died in ms since 1970 or 0, looks, record of deliveries or '', …}.
-- KEYS: ready, expiring, deliveries, leased, delayed, dead
-- include: _prelude
local place, first, count, bytes = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local last = first + count - 1
local now = now_ms()
local sets = {leased = LEASED, delayed = DELAYED, dead = DEAD}
local keys, at_ms = {}, {}

if sets[place] then
  local flat = call('ZRANGE', sets[place], first, last, 'WITHSCORES')
  for i = 1, #flat, 2 do keys[#keys + 1], at_ms[flat[i]] = flat[i], string.match(flat[i + 1], '^%d+') end
elseif place == 'newest' then
  keys = call('LRANGE', READY, first, last)
else
  local front = call('LRANGE', READY, -1 - last, -1 - first)
  for i = #front, 1, -1 do keys[#keys + 1] = front[i] end
end

local found = {sets[place] and call('ZCARD', sets[place]) or call('LLEN', READY) - call('ZCOUNT', EXPIRING, '-inf', now)}
for _, key in ipairs(keys) do
  local expires_ms = call('PEXPIRETIME', key)
  local is_value = call('TYPE', key).ok == 'string' -- an entry that was put in by hand may name anything
  if is_value and (expires_ms == -1 or expires_ms > now) then
    local looks, record = call('GET', key .. ':refcount') or '0', call('HGET', DELIVERIES, key) or ''
    local value, size = call('GETRANGE', key, 0, bytes - 1), call('STRLEN', key)
    for _, part in ipairs({key, value, size, at_ms[key] or '0', looks, record}) do found[#found + 1] = part end
  end
end
return found
