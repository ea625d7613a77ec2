-- include: _number
-- include: _record
-- The order of a queue: messages stand in the order in which they joined it.
-- 1. A message that is added ready joins with its number.
-- 2. A delayed message and a dead letter join when the delay is over or it is redriven, behind all that are there.
--    Their record in DELIVERIES keeps the place as `order`: the last number given then, and the time in µs.
-- 3. A message that comes back (lease over, nack, consumer gone) takes its old place, before all that joined later. So
--    messages keep the order of their first delivery, however many calls bring them back.
local OLDER_MAX, PUSHED_MAX = 2000, 1000

local function order_of(key, record)
  local last_number, at_us = string.match(record.order or '', '^(%d+) (%d+)$')
  local number = number_of(key)
  return {tonumber(last_number or number), tonumber(at_us or 0), number}
end

local function precedes(one, other)
  for i = 1, 2 do
    if one[i] ~= other[i] then return one[i] < other[i] end
  end
  return one[3] < other[3]
end

-- The number of messages that precede a place in the order, of `count` messages; at(i) is the i-th, the front first.
local function count_preceding(at, count, order)
  local low, high, probe = 0, count, count -- the last one first: it often precedes
  while low < high do
    local key = at(probe)
    if precedes(order_of(key, record_of(key)), order) then low = probe else high = probe - 1 end
    probe = math.ceil((low + high) / 2)
  end
  return low
end

-- Takes the messages at the front that precede a place in the order, at most OLDER_MAX, off the queue. Returns them,
-- the front first.
local function take_preceding(order)
  local function at(i) return call('LINDEX', READY, -i) end
  local length = call('LLEN', READY)
  if count_preceding(at, math.min(length, 1), order) == 0 then return {} end
  return call('RPOP', READY, count_preceding(at, math.min(length, OLDER_MAX), order))
end

-- Puts messages back into their places. `orders` has the place of each key; `keys` are in this order.
local function come_back(keys, orders)
  if #keys == 0 then return end
  local preceding, pushed = take_preceding(orders[keys[#keys]]), {}
  local function at(i) return preceding[i] end
  local last = #preceding
  local function push(key)
    pushed[#pushed + 1] = key
    if #pushed == PUSHED_MAX then
      call('RPUSH', READY, unpack(pushed))
      pushed = {}
    end
  end
  for i = #keys, 1, -1 do
    local count = count_preceding(at, last, orders[keys[i]])
    for j = last, count + 1, -1 do push(preceding[j]) end
    push(keys[i])
    last = count
  end
  for j = last, 1, -1 do push(preceding[j]) end
  if #pushed > 0 then call('RPUSH', READY, unpack(pushed)) end
end

local function sort_by_order(keys, orders)
  table.sort(keys, function(one, other) return precedes(orders[one], orders[other]) end)
end
