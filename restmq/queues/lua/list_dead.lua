-- Lists dead letters in the order of their deaths; those that rest (see forward) come last. Drops expired ones.
-- ARGV: queue, clock, number to skip, maximum number to list.
-- Returns {number of all, key, value, time of death in ms since 1970, record, …}. Stops early when the answer has
-- become large.
-- include: _prelude
-- include: _expiry
-- include: _value
-- include: _died
local BYTES_MAX = 16777216
local first = tonumber(ARGV[3])
local listed = call('ZRANGE', DEAD, first, first + tonumber(ARGV[4]) - 1, 'WITHSCORES')
local found, bytes = {0}, 0
for i = 1, #listed, 2 do
  local key = listed[i]
  local value = expiry_if_alive(key) and value_of(key)
  if not value then
    call('ZREM', DEAD, key)
  elseif bytes < BYTES_MAX then
    bytes = bytes + #value
    for _, part in ipairs({key, value, died_ms(listed[i + 1]), call('HGET', DELIVERIES, key) or ''}) do
      found[#found + 1] = part
    end
  end
end
found[1] = call('ZCARD', DEAD)
return found
