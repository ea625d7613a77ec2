-- include: _overdue
-- include: _deliver_again
-- Leases messages that were popped. Returns for append_messages their numbers of deliveries
-- (nil if each is the first), receipts and records.
local function start_leases(popped, lease_ms, receipt, holder)
  local keys = popped.keys
  if #keys == 0 then return end
  local due_ms = now_ms() + lease_ms
  -- Redis turns numbers into text slowly.
  local now, due = string.format('%d', now_ms()), string.format('%d', due_ms)
  local first_record = string.format('{"count":1,"first":%s,"last":%s}', now, now)
  local known = popped.has_records and call('HMGET', DELIVERIES, unpack(keys))
  local counts, receipts, records, leased, held_by, noted = nil, {}, {}, {}, {}, {}
  for i, key in ipairs(keys) do
    records[i], receipts[i] = first_record, receipt .. '.' .. i
    if known and known[i] then
      counts = counts or {}
      records[i], counts[i] = deliver_again(known[i])
    end
    leased[2 * i - 1], leased[2 * i] = due, key
    held_by[2 * i - 1], held_by[2 * i] = key, holder == '' and receipts[i] or receipts[i] .. ' ' .. holder
    noted[2 * i - 1], noted[2 * i] = key, records[i]
  end
  call('ZADD', LEASED, unpack(leased))
  call('HSET', RECEIPTS, unpack(held_by))
  call('HSET', DELIVERIES, unpack(noted))
  if popped.expiries then call('ZREM', EXPIRING, unpack(keys)) end
  call('HINCRBY', TOTALS, 'leased', #keys)
  if not scheduled_ms or tonumber(scheduled_ms) > due_ms then
    -- include: _schedule
    schedule(due_ms)
  end
  for i = 1, counts and #keys or 0 do counts[i] = counts[i] or 1 end
  return counts, receipts, records
end
