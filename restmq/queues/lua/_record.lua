-- DELIVERIES has a record in JSON for each message that needs one: {count, first, last, reason, failed, order, origin,
-- content_type, headers, attributes, sent, id, group, dedup, number, received}. The first three are its deliveries under leases.
-- `reason` is the last one of a failure, and `failed` its time in ms. `order` is its place in the queue (see _order).
-- `origin` says where a dead letter of another queue comes from. The others came with the message, and stay with it. SQS
-- has added those from `id` on: `group` and `dedup` in FIFO queues (see fifo/_groups), and if the message moved to another
-- queue, `number`, which is its number in the first one, and `received`, its deliveries in all queues before this one.
local function record_of(key)
  local record = call('HGET', DELIVERIES, key)
  return record and cjson.decode(record) or {count = 0}
end

-- The same record without the deliveries.
local function undelivered(record)
  record.count, record.first, record.last, record.reason, record.failed = 0, nil, nil, nil, nil
  return record
end
