-- Adds messages of SQS to a FIFO queue, each separately; otherwise as the script that this replaces. A message whose
-- deduplication id was sent in the last five minutes is not added again.
-- SENT_IDS has the number and id of the first message with each deduplication id, and SENT_TIMES the times in ms at which
-- they are forgotten.
-- durable
-- include: _prelude
-- include: _append
-- include: _capacity
-- include: _wake
-- include: _schedule
local KNOWN_MS = 300000
local delay, retention, size_max, by_content, scope = unpack(call('HMGET', SQS, 'a:DelaySeconds',
  'a:MessageRetentionPeriod', 'a:MaximumMessageSize', 'a:ContentBasedDeduplication', 'a:DeduplicationScope'))
local now = now_ms()
local delay_ms = (delay or 0) * 1000
local expires_ms, due_ms = retention and now + retention * 1000 or 0, delay_ms > 0 and now + delay_ms or 0

local function forget_ids(ids)
  call('HDEL', SENT_IDS, unpack(ids))
  call('ZREM', SENT_TIMES, unpack(ids))
end

-- The number and the id of the first message with this deduplication id, if it is remembered.
local function first_sent(id)
  local until_ms = call('ZSCORE', SENT_TIMES, id)
  if not until_ms or tonumber(until_ms) <= now then return nil end
  return string.match(call('HGET', SENT_IDS, id), '^(%d+) (.*)$')
end

local function remember(id, number, message_id)
  call('HSET', SENT_IDS, id, string.format('%.0f %s', number, message_id))
  call('ZADD', SENT_TIMES, now + KNOWN_MS, id)
  call('PEXPIRE', SENT_IDS, KNOWN_MS)
  call('PEXPIRE', SENT_TIMES, KNOWN_MS)
end

local function send(size, group, is_id_given, id, record, value)
  if size_max and tonumber(size) > tonumber(size_max) then return 'too_large', size_max end
  if group == '' then return 'no_group' end
  if is_id_given == '0' and by_content ~= 'true' then return 'no_deduplication' end
  if scope == 'messageGroup' then id = group .. ' ' .. id end
  local number, message_id = first_sent(id)
  if number then return 'duplicate', number, message_id end
  if capacity() < 1 then return 'full' end
  number = append(value, record, group, expires_ms, due_ms)
  remember(id, number, cjson.decode(record).id or '')
  return 'sent', string.format('%.0f', number), ''
end

local answers, count = {}, (#ARGV - 3) / 7
sweep(count)
drop_overdue(SENT_TIMES, count, forget_ids)
for i = 4, #ARGV, 7 do
  local state, number, message_id = send(unpack(ARGV, i + 1, i + 6))
  for _, part in ipairs({state, number or '', message_id or ''}) do answers[#answers + 1] = part end
end
if due_ms > 0 then schedule(due_ms) else wake() end
return answers
