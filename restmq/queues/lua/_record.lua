-- DELIVERIES has a record {count, first, last, order, origin} in JSON for each message that needs one: its deliveries
-- under leases, its place in the queue (see _order), and, for a forwarded dead letter, where it comes from.
local function record_of(key)
  local record = call('HGET', DELIVERIES, key)
  return record and cjson.decode(record) or {count = 0}
end
