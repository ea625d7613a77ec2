-- include: _forget
-- Removes popped messages for good. Returns their looks and records for append_messages.
local function take_out(popped)
  local keys, names = popped.keys, {}
  if #keys == 0 then return end
  for i, key in ipairs(keys) do names[i] = key .. ':refcount' end
  local looks = call('EXISTS', unpack(names)) > 0 and call('MGET', unpack(names))
  local records = popped.has_records and call('HMGET', DELIVERIES, unpack(keys))
  forget(keys, popped.expiries ~= nil, popped.has_records, looks ~= false)
  call('HINCRBY', TOTALS, 'out', #keys)
  return looks, records
end
