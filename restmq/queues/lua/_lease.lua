-- include: _ready
-- include: _due
-- KEYS: receipts, totals
-- A leased message keeps its value. LEASED has its deadline. RECEIPTS has its receipt and, after a blank, the channel
-- of the daemon that holds it for a live consumer. DELIVERIES has a record {count, first, last, origin} in JSON.
local function record_of(key)
  local record = call('HGET', DELIVERIES, key)
  return record and cjson.decode(record) or {count = 0}
end

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

-- Whether this receipt is that of the message's lease, and the lease is in force.
local function holds(key, receipt)
  local found = call('HGET', RECEIPTS, key)
  if not found or string.match(found, '^%S+') ~= receipt then return false end
  local due_ms = call('ZSCORE', LEASED, key)
  return due_ms and tonumber(due_ms) > now_ms()
end

-- Ends the lease, and tells the daemon that held the message for a consumer.
local function end_lease(key)
  local receipt, holder = string.match(call('HGET', RECEIPTS, key) or '', '^(%S*) ?(.*)$')
  call('ZREM', LEASED, key)
  call('HDEL', RECEIPTS, key)
  if holder ~= '' then call('PUBLISH', holder, QUEUE .. '\n' .. key .. ' ' .. receipt) end
end

-- Makes the message a dead letter. DEAD has its time of death. Deaths in the same millisecond get rising fractions of
-- it, because Redis would sort equal times by the text of the keys.
local FRACTION_MS = 1 / 2048

local function make_dead_letter(key, at_ms)
  local next_ms = string.format('(%.0f', at_ms + 1)
  local before = call('ZREVRANGEBYSCORE', DEAD, next_ms, at_ms, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  call('ZADD', DEAD, before and math.min(tonumber(before), at_ms + 1 - 2 * FRACTION_MS) + FRACTION_MS or at_ms, key)
  call('HINCRBY', TOTALS, 'dead', 1)
end

-- Resets the deliveries. The origin of a forwarded dead letter stays.
local function forget_deliveries(key, record)
  if record.origin then
    call('HSET', DELIVERIES, key, cjson.encode({count = 0, origin = record.origin}))
  else
    call('HDEL', DELIVERIES, key)
  end
end

local function take_back_delivery(key, record)
  record.count = record.count - 1
  if record.count == 0 then
    forget_deliveries(key, record)
  else
    call('HSET', DELIVERIES, key, cjson.encode(record))
  end
end

-- The deliveries of these messages failed; their leases ended at the times `ended_ms` has by key, or now. The messages
-- return to the front, in the given order, or become dead letters after too many deliveries. `blameless` deliveries
-- reached no consumer and do not count.
local function fail_deliveries(keys, blameless, ended_ms)
  local deliveries_max, back = setting('max_deliveries'), {}
  for _, key in ipairs(keys) do
    local record = record_of(key)
    if blameless then take_back_delivery(key, record) end
    if not expiry_if_alive(key) then
      call('HINCRBY', TOTALS, 'expired', 1)
    elseif deliveries_max > 0 and record.count >= deliveries_max then
      make_dead_letter(key, ended_ms[key] or now_ms())
    else
      back[#back + 1] = key
    end
  end
  for i = #back, 1, -1 do enqueue('RPUSH', back[i]) end
  if #back > 0 then call('HINCRBY', TOTALS, 'redelivered', #back) end
  schedule_forwarding()
end
