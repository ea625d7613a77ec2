-- Reads dead letters that move to a queue in another partition of a cluster, or to a FIFO queue. Changes nothing but what forward does to
-- letters that do not move: expired ones are dropped, and some rest. A bounded number and size per call.
-- ARGV: queue, clock, 1 if a user asked for it or 0, the key of one dead letter or '' for all, number of
-- bytes of the tag before each name.
-- Returns {number of those that now rest; key, score in DEAD, value, expiry in ms since 1970 or 0, record for the other
-- queue, …}.
-- durable
-- allow-oom
-- include: _prelude
-- include: _expiry
-- include: _letters
local BYTES_MAX = 16777216
local by_user, tag_bytes = ARGV[3] == '1', tonumber(ARGV[5])
local found, bytes = {0}, 0
for _, key in ipairs(letters_to_move(by_user, ARGV[4])) do
  local record, expires_ms = record_of(key), expiry_if_alive(key)
  if not expires_ms then
    call('ZREM', DEAD, key)
  elseif must_rest(record, by_user) then
    call('ZINCRBY', DEAD, RESTING_MS, key)
    found[1] = found[1] + 1
  elseif bytes < BYTES_MAX then
    local value = call('GET', key)
    bytes = bytes + #value
    local shown_key = string.sub(key, tag_bytes + 1)
    local copy = cjson.encode(moved_record(shown_key, record, by_user))
    for _, part in ipairs({key, call('ZSCORE', DEAD, key), value, string.format('%.0f', expires_ms), copy}) do
      found[#found + 1] = part
    end
  end
end
return found
