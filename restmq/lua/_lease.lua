-- include: _ready
-- include: _due
-- KEYS: receipts, totals
-- A leased message keeps its value. LEASED has its deadline, RECEIPTS the receipt and, after a blank, the channel of the
-- daemon that holds it for a connected consumer; DELIVERIES a record {count, first, last, origin} in JSON.
local function record_of(key)
  local record = call('HGET', DELIVERIES, key)
  return record and cjson.decode(record) or {count = 0}
end

-- These messages, which were popped, are leased. Returns them as columns.
local function hold(keys, values, expiries, lease_ms, receipt, holder)
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
  look_at(due_ms)
  return as_columns(keys, values, counts, expiries, receipts, records)
end

-- Whether this receipt is that of the message's lease, and the lease is not over.
local function holds(key, receipt)
  local found = call('HGET', RECEIPTS, key)
  if not found or string.match(found, '^%S+') ~= receipt then return false end
  local due_ms = call('ZSCORE', LEASED, key)
  return due_ms and tonumber(due_ms) > now_ms()
end

-- The lease ends; the daemon that held the message for a consumer is told.
local function end_lease(key)
  local receipt, holder = string.match(call('HGET', RECEIPTS, key) or '', '^(%S*) ?(.*)$')
  call('ZREM', LEASED, key)
  call('HDEL', RECEIPTS, key)
  if holder ~= '' then call('PUBLISH', holder, QUEUE .. '\n' .. key .. ' ' .. receipt) end
end

-- The delivery has failed: the message goes back to the front, or, after too many, to the dead letters.
local function fail(key, blameless)
  end_lease(key)
  local record = record_of(key)
  if blameless then
    record.count = record.count - 1
    if record.count == 0 and not record.origin then
      call('HDEL', DELIVERIES, key)
    else
      call('HSET', DELIVERIES, key, cjson.encode(record))
    end
  end
  local most = setting('max_deliveries')
  if not expiry_if_alive(key) then
    call('HINCRBY', TOTALS, 'expired', 1)
  elseif most > 0 and record.count >= most then
    call('ZADD', DEAD, now_ms(), key)
    call('HINCRBY', TOTALS, 'dead', 1)
    if dead_to_forward() then look_at(0) end
  else
    wait_in_line('RPUSH', key)
    call('HINCRBY', TOTALS, 'redelivered', 1)
  end
end
