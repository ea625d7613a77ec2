-- DELIVERIES has a record {count, first, last, reason, failed, order, origin} in JSON for each message that needs one:
-- its deliveries under leases, the last reason of a failure and its time in ms, its place in the queue (see _order), and,
-- for a dead letter of another queue, where it comes from.
local function record_of(key)
  local record = call('HGET', DELIVERIES, key)
  return record and cjson.decode(record) or {count = 0}
end
