-- include: _expiry
-- include: _lease
-- include: _order
-- include: _forwarding
-- Makes the message a dead letter. DEAD has its time of death. Deaths in the same millisecond get rising fractions of
-- it, because Redis would sort equal times by the text of the keys.
local FRACTION_MS = 1 / 2048

local function make_dead_letter(key, at_ms)
  local next_ms = string.format('(%.0f', at_ms + 1)
  local before = call('ZREVRANGEBYSCORE', DEAD, next_ms, at_ms, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  call('ZADD', DEAD, before and math.min(tonumber(before), at_ms + 1 - 2 * FRACTION_MS) + FRACTION_MS or at_ms, key)
  call('HINCRBY', TOTALS, 'dead', 1)
end

-- Resets the deliveries in a message's record, and drops a record that has nothing else.
local function reset_deliveries(key, record)
  local encoded = cjson.encode(undelivered(record))
  if encoded == '{"count":0}' then
    call('HDEL', DELIVERIES, key)
  else
    call('HSET', DELIVERIES, key, encoded)
  end
end

local function take_back_delivery(key, record)
  record.count = record.count - 1
  if record.count == 0 then
    reset_deliveries(key, record)
  else
    call('HSET', DELIVERIES, key, cjson.encode(record))
  end
end

-- retry_delays(cause): a function that returns the time in ms until a message comes back, by its record and receipt. With
-- the setting retry_delay it doubles with each delivery, up to retry_delay_max, and a part up to JITTER is added: leases
-- that end together must not come back together.
local RETRY_SECONDS_MAX, JITTER = 3600, 0.1

local function retry_delays(cause, first, most)
  if cause.blameless or cause.delay_ms or not first then return function() return cause.delay_ms or 0 end end
  most = tonumber(most or math.max(first, RETRY_SECONDS_MAX))
  return function(record, receipt)
    local random = tonumber(string.sub(redis.sha1hex(receipt), 1, 4), 16) / 65535
    return math.floor(1000 * math.min(first * 2 ^ (record.count - 1), most) * (1 + JITTER * random))
  end
end

-- Ends leases. The deliveries failed; the messages come back (see _order), at once or later, or become dead letters after
-- too many deliveries.
-- `cause` has: ended_ms, the times by key at which the leases ended, if not now; blameless, if the deliveries reached no
-- consumer and do not count; delay_ms, to come back then, whatever the settings say; reason, or ''.
local function fail_deliveries(keys, cause)
  local deliveries_max, first, most = unpack(call('HMGET', SETTINGS, 'max_deliveries', 'retry_delay', 'retry_delay_max'))
  local delay_of = retry_delays(cause, first, most)
  local back, records, orders, delayed, nearest_ms = {}, {}, {}, 0, math.huge
  deliveries_max = tonumber(deliveries_max or math.huge)
  for _, key in ipairs(keys) do
    records[key] = record_of(key)
    orders[key] = order_of(key, records[key])
  end
  sort_by_order(keys, orders)
  local receipts = #keys > 0 and end_leases(keys)
  for i, key in ipairs(keys) do
    local record, receipt = records[key], string.match(receipts[i] or '', '^%S*')
    local ended_ms = cause.ended_ms and cause.ended_ms[key] or now_ms()
    local due_ms = ended_ms + delay_of(record, receipt)
    if cause.blameless then
      take_back_delivery(key, record)
    elseif cause.reason and cause.reason ~= '' then
      record.reason, record.failed = cause.reason, ended_ms
      call('HSET', DELIVERIES, key, cjson.encode(record))
    end
    if record.count >= deliveries_max and expiry_if_alive(key) then
      make_dead_letter(key, ended_ms)
    elseif due_ms > now_ms() and expiry_if_alive(key) then
      call('ZADD', DELAYED, due_ms, key)
      delayed, nearest_ms = delayed + 1, math.min(nearest_ms, due_ms)
    elseif becomes_ready(key) then
      back[#back + 1] = key
    else
      call('HINCRBY', TOTALS, 'expired', 1)
    end
  end
  come_back(back, orders)
  if #back + delayed > 0 then call('HINCRBY', TOTALS, 'redelivered', #back + delayed) end
  if delayed > 0 then schedule(nearest_ms) end
  schedule_forwarding()
end
