-- DELIVERIES has a record in JSON for each message that needs one: {count, first, last, reason, failed, order, origin,
-- content_type, headers, sent, id, group, dedup, number}. The first three are its deliveries under leases. `reason` is the last one of a failure,
-- and `failed` its time in ms. `order` is its place in the queue (see _order). `origin` says where a dead letter of another
-- queue comes from. Those from content_type to sent came with the message, and
-- stay with it. The last four are of SQS: `group` and `dedup` of a message of a FIFO queue (see fifo/_groups); `number` if it
-- moved to another queue, that in the first one. SQS adds members of its own.
local function record_of(key)
  local record = call('HGET', DELIVERIES, key)
  return record and cjson.decode(record) or {count = 0}
end

-- The same record without the deliveries.
local function undelivered(record)
  record.count, record.first, record.last, record.reason, record.failed = 0, nil, nil, nil, nil
  return record
end
