-- include: _columns
-- include: _record
-- include: _schedule
-- Leases messages that were popped. Returns them as columns.
local function start_leases(keys, values, expiries, lease_ms, receipt, holder)
  if #keys == 0 then return {} end
  local now, counts, receipts, records = now_ms(), {}, {}, {}
  local due_ms = now + lease_ms
  for i, key in ipairs(keys) do
    local record = record_of(key)
    local own_receipt = receipt .. '.' .. i
    record.count, record.first, record.last = record.count + 1, record.first or now, now
    local encoded = cjson.encode(record)
    call('ZADD', LEASED, due_ms, key)
    call('HSET', RECEIPTS, key, holder == '' and own_receipt or own_receipt .. ' ' .. holder)
    call('HSET', DELIVERIES, key, encoded)
    counts[i], receipts[i], records[i] = tostring(record.count), own_receipt, encoded
  end
  call('ZREM', EXPIRING, unpack(keys))
  call('HINCRBY', TOTALS, 'leased', #keys)
  schedule(due_ms)
  return as_columns(keys, values, counts, expiries, receipts, records)
end
