-- Makes a queue for SQS. A queue that RestMQ has becomes one of SQS. A queue of SQS stays as it is.
-- ARGV: queue, clock, seconds as in settings, 1 for a FIFO queue or 0, number of fields, name and value of each field of
-- SQS (see _sqs), then of each setting.
-- Returns {1 if it was made or 0, the columns of `describe`}, or nothing if a FIFO queue was to be made of a queue that
-- holds messages.
-- include: _prelude
-- include: _sqs
-- include: _set
-- include: _begin
-- include: _watch
-- include: _forwarding
if call('EXISTS', SQS) == 1 then return {0, unpack(describe())} end
local is_fifo, last_field = ARGV[4] == '1', 5 + 2 * ARGV[5]
if is_fifo then
  if call('LLEN', READY) + call('ZCARD', LEASED) + call('ZCARD', DELAYED) + call('ZCARD', DEAD) > 0 then return {} end
  call(PUBLISH, CHANNEL, 'close')
end
local now = string.format('%.0f', now_ms())
call('HSET', SQS, 'created', now, 'modified', now)
set(SQS, 6, last_field)
set(SETTINGS, last_field + 1, #ARGV, true)
if call('SADD', QUEUE_SET, QUEUE) == 1 then begin(NUMBER, LAST_NUMBER, TOTALS) end
if is_fifo or not call('GET', POLICY) then
  call('SET', POLICY, '2')
  call(PUBLISH, CHANNEL, 'changed')
end
watch(ARGV[3])
if forward_to() then schedule(0) end
return {1, unpack(describe())}
