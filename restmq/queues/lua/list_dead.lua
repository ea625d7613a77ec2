-- Looks at dead letters, the one that died first before the others; passes over those that have expired since.
-- ARGV: queue, clock, how many to pass over, how many at most.
-- Returns {how many there are, key, value, time of death in ms since 1970, record, …}. Stops early where the answer has become large.
-- include: _prelude
-- include: _lease
local BYTES_AT_MOST = 16777216
local first = tonumber(ARGV[3])
local listed = call('ZRANGE', DEAD, first, first + tonumber(ARGV[4]) - 1, 'WITHSCORES')
local found, bytes = {0}, 0
for i = 1, #listed, 2 do
  local key = listed[i]
  local value = expiry_if_alive(key) and value_of(key)
  if not value then
    call('ZREM', DEAD, key)
  elseif bytes < BYTES_AT_MOST then
    bytes = bytes + #value
    for _, part in ipairs({key, value, string.match(listed[i + 1], '^%d+'), call('HGET', DELIVERIES, key) or ''}) do
      found[#found + 1] = part
    end
  end
end
found[1] = call('ZCARD', DEAD)
return found
