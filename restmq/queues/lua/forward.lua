-- Moves dead letters to another queue, as new messages with a note of their origin. A bounded number per call. Without a
-- user's request, to the queue that the setting dead_letter names (see _letters). In a cluster, letters, adopt and
-- adopted do this instead.
-- KEYS: more at the end, of the other queue: queue_set, number, last_number, totals, ready, expiring, deliveries, times,
-- sqs, tapped, channel.
-- ARGV: queue, clock, the other queue's name, 1 if a user asked for it or 0, the key of one dead letter or '' for all.
-- Returns {number moved, number of dead letters that remain to be moved, number of those that now rest}.
-- allow-oom
-- include: _prelude
-- include: _record
-- include: _expiry
-- include: _reschedule
-- include: _age
-- include: _letters
-- include: _begin
-- include: _retention
local OTHER, by_user, wanted = ARGV[3], ARGV[4] == '1', ARGV[5]
local QUEUES, OTHER_NUMBER, OTHER_LAST, OTHER_TOTALS, OTHER_READY, OTHER_EXPIRING, OTHER_DELIVERIES, OTHER_TIMES =
  unpack(KEYS, #KEYS - 10)
local OTHER_SQS = KEYS[#KEYS - 2]
local OTHER_TAPPED, OTHER_CHANNEL = unpack(KEYS, #KEYS - 1)
local letters = letters_to_move(by_user, wanted)
if #letters == 0 then return {0, 0, 0} end

-- If one of these keys has a wrong type, the script fails here, before it has moved anything.
if call('SADD', QUEUES, OTHER) == 1 then begin(OTHER_NUMBER, OTHER_LAST, OTHER_TOTALS) end
local next_number = call('INCRBY', OTHER_NUMBER, 0) + 1
call('HLEN', OTHER_DELIVERIES)
call('ZCARD', OTHER_EXPIRING)
call('LLEN', OTHER_READY)
mark_time(next_number, OTHER_READY, OTHER_EXPIRING, OTHER_TIMES)
local moved, rested, copy = 0, 0, nil
if call('EXISTS', OTHER_TAPPED) == 1 then
  -- include: _tap
  copy = copying(OTHER, OTHER_CHANNEL)
end
for _, key in ipairs(letters) do
  local record, expires_ms = record_of(key), expiry_if_alive(key)
  if not expires_ms then
    call('ZREM', DEAD, key)
  elseif must_rest(record, by_user) then
    call('ZINCRBY', DEAD, RESTING_MS, key)
    rested = rested + 1
  else
    local other_key = OTHER .. ':' .. string.format('%.0f', call('INCR', OTHER_NUMBER))
    call('RENAME', key, other_key)
    record = moved_record(key, record, by_user)
    expires_ms = expiry_here(record, expires_ms, OTHER_SQS)
    local new_record = cjson.encode(record)
    call('HSET', OTHER_DELIVERIES, other_key, new_record)
    if copy then copy(other_key, call('GET', other_key), new_record) end
    if expires_ms > 0 then
      call('PEXPIREAT', other_key, expires_ms)
      call('ZADD', OTHER_EXPIRING, expires_ms, other_key)
    end
    call('LPUSH', OTHER_READY, other_key)
    forget({key})
    call('ZREM', DEAD, key)
    moved = moved + 1
  end
end
reschedule()
return {moved, wanted == '' and count_to_move(by_user) or 0, rested}
