-- The record of a message that had one and is delivered now, and its number of deliveries.
local function deliver_again(before)
  local record = cjson.decode(before)
  record.count, record.first, record.last = record.count + 1, record.first or now_ms(), now_ms()
  return cjson.encode(record), record.count
end
