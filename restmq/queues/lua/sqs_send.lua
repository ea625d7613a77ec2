-- Adds messages of SQS, each separately, with the queue's attributes.
-- ARGV: queue, clock, seconds as in settings, then for each message: delay in ms or '' for the queue's, its size in
-- bytes, its group, 1 if its deduplication id was given or 0, that id or the SHA-256 of the value, record, value. The
-- three of these for FIFO queues have no effect here.
-- Returns for each message: state, number, id; the numbers and ids of the messages that were sent, the maximum if it is
-- too large. Nothing if there is no such queue.
-- durable
-- include: _prelude
-- include: _sqs
if not exists() then return {} end

local function add(ARGV)
  -- include: add
end

local delay, retention, size_max = unpack(call('HMGET', SQS, 'a:DelaySeconds', 'a:MessageRetentionPeriod',
  'a:MaximumMessageSize'))
local ttl_ms, answers = (retention or 0) * 1000, {}
for i = 4, #ARGV, 7 do
  local delay_ms, size, _, _, _, record, value = unpack(ARGV, i, i + 6)
  local state, key = 'too_large', size_max
  if tonumber(size) <= tonumber(size_max or math.huge) then
    if delay_ms == '' then delay_ms = (delay or 0) * 1000 end
    state, key = unpack(add({QUEUE, ARGV[2], 10, 'ttl_ms', ttl_ms, 'delay_ms', delay_ms, 'whole', '1', 'record', record,
      'expires', ARGV[3], value}))
  end
  answers[#answers + 1], answers[#answers + 2] = state == '' and 'sent' or state, string.match(key or '', '%d*$')
  answers[#answers + 1] = ''
end
return answers
