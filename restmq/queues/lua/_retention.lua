-- The expiry (ms since 1970 or 0) of a message that comes from another queue, here or in the queue with this hash SQS.
-- A message that was sent over SQS is kept for the retention of the new queue, counted from the time when it was sent.
local function expiry_here(record, expires_ms, sqs)
  local retention = record.id and record.sent and call('HGET', sqs or SQS, 'a:MessageRetentionPeriod')
  return retention and record.sent + retention * 1000 or tonumber(expires_ms)
end
