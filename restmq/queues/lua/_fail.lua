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

-- Ends leases. The deliveries failed; the leases ended at the times that `ended_ms` has by key, or now. The messages
-- come back (see _order), or become dead letters after too many deliveries. `blameless` deliveries reached no consumer
-- and do not count.
local function fail_deliveries(keys, blameless, ended_ms)
  local deliveries_max, back, records, orders = setting('max_deliveries'), {}, {}, {}
  for _, key in ipairs(keys) do
    records[key] = record_of(key)
    orders[key] = order_of(key, records[key])
  end
  sort_by_order(keys, orders)
  for _, key in ipairs(keys) do
    local record = records[key]
    end_lease(key)
    if blameless then take_back_delivery(key, record) end
    if deliveries_max > 0 and record.count >= deliveries_max and expiry_if_alive(key) then
      make_dead_letter(key, ended_ms[key] or now_ms())
    elseif becomes_ready(key) then
      back[#back + 1] = key
    else
      call('HINCRBY', TOTALS, 'expired', 1)
    end
  end
  come_back(back, orders)
  if #back > 0 then call('HINCRBY', TOTALS, 'redelivered', #back) end
  schedule_forwarding()
end
