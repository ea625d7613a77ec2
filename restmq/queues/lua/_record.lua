-- DELIVERIES has a record in JSON for each message that needs one: {count, first, last, order, origin, content_type,
-- headers, sent}. The first three are its deliveries under leases. `order` is its place in the queue (see _order).
-- `origin` says where a forwarded dead letter comes from. The others came with the message, and stay with it.
local function record_of(key)
  local record = call('HGET', DELIVERIES, key)
  return record and cjson.decode(record) or {count = 0}
end

-- The same record without the deliveries.
local function undelivered(record)
  record.count, record.first, record.last = 0, nil, nil
  return record
end
