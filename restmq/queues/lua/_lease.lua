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

-- A message is dead. DEAD has the time of death; who dies in the same millisecond stands there a fraction of it later than
-- the one before, as equal times would come out in the order of the keys' text.
local MOMENT_MS = 1 / 2048

local function make_dead_letter(key, at_ms)
  local next_ms = string.format('(%.0f', at_ms + 1)
  local before = call('ZREVRANGEBYSCORE', DEAD, next_ms, at_ms, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  call('ZADD', DEAD, before and math.min(tonumber(before), at_ms + 1 - 2 * MOMENT_MS) + MOMENT_MS or at_ms, key)
  call('HINCRBY', TOTALS, 'dead', 1)
end

-- Of a message that was a dead letter elsewhere stays where it comes from.
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

-- The deliveries of these messages, whose leases ended at these times or now, have failed: they go back to the front, in
-- the order in which they are named, or, after too many, to the dead letters.
local function fail(keys, blameless, ended_ms)
  local most, back = setting('max_deliveries'), {}
  for _, key in ipairs(keys) do
    local record = record_of(key)
    if blameless then take_back_delivery(key, record) end
    if not expiry_if_alive(key) then
      call('HINCRBY', TOTALS, 'expired', 1)
    elseif most > 0 and record.count >= most then
      make_dead_letter(key, ended_ms[key] or now_ms())
    else
      back[#back + 1] = key
    end
  end
  for i = #back, 1, -1 do wait_in_line('RPUSH', back[i]) end
  if #back > 0 then call('HINCRBY', TOTALS, 'redelivered', #back) end
  look_at_the_dead()
end
