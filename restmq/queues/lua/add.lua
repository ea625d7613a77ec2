-- Adds messages, in order. If the queue is started, broadcasts, has no backlog and is not held back (see _flow), a
-- message goes straight to the live consumers. If any daemon received it, it is delivered, and nothing is stored.
-- Otherwise the message becomes ready or, with a delay, delayed.
-- KEYS: with a fingerprint one more at the end, to store it.
-- ARGV: queue, clock, ttl in ms or 0, delay in ms or 0, 1 for all or nothing, fingerprint or '', lifetime of the
-- fingerprint in ms, '' or the record of each message (see _record), seconds after which queues without the setting
-- `expires` end (see _idle) or 0, then the values.
-- Returns {'', 'full' or 'conflict', key, …}. If full and not all or nothing, the first values were added.
-- durable
-- include: _prelude
-- include: _wake
-- include: _publish
-- include: _age
local ttl_ms, delay_ms, all_or_nothing = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local fingerprint, fingerprint_ms, record = ARGV[6], ARGV[7], ARGV[8]
local FIRST = 10
local count = #ARGV - FIRST + 1
local expires_ms = ttl_ms > 0 and now_ms() + ttl_ms or 0
local due_ms = delay_ms > 0 and now_ms() + delay_ms or 0
local status, policy, held, tapped = unpack(call('MGET', STATUS, POLICY, HELD, TAPPED))
local live = delay_ms == 0 and status ~= '0' and policy ~= '2' and not held and call('LLEN', READY) == 0
local keys = {''}

if fingerprint ~= '' then
  local seen, first, seen_count = string.match(call('GET', KEYS[#KEYS]) or '', '^(%S+) (%d+) (%d+)$')
  if seen and seen ~= fingerprint then return {'conflict'} end
  if seen then
    for number = tonumber(first), first + seen_count - 1 do keys[#keys + 1] = QUEUE .. ':' .. number end
    return keys
  end
end

local capacity = setting('max_length')
if capacity == 0 then
  capacity = math.huge
else
  -- include: _length
  -- include: _rounds
  local function all_can_be_published()
    local window, unconfirmed = flow_state()
    for i = FIRST, #ARGV do unconfirmed = unconfirmed + #ARGV[i] + #record + OVERHEAD end
    return unconfirmed < window and call('PUBSUB', NUMSUB, CHANNEL)[2] > 0
  end

  capacity = capacity - length() - call('ZCARD', LEASED) - call('ZCARD', DELAYED)
  if all_or_nothing and capacity < count and not (live and all_can_be_published()) then return {'full'} end
end

if call('SADD', QUEUE_SET, QUEUE) == 1 then
  -- include: _begin
  -- include: _watch
  begin(NUMBER, LAST_NUMBER, TOTALS)
  watch(ARGV[9])
end
local next_value, spare_number = FIRST, nil
while live and next_value <= #ARGV do
  local number, received = call('INCR', NUMBER), nil
  local key = QUEUE .. ':' .. number
  received, live = publish(key, ARGV[next_value], expires_ms, record)
  if received then
    keys[#keys + 1] = key
    next_value = next_value + 1
  else
    spare_number = number
  end
end
if next_value > FIRST then call('HINCRBY', TOTALS, 'out', next_value - FIRST) end
local last_value = math.min(#ARGV, next_value - 1 + math.max(0, capacity))
if all_or_nothing then last_value = #ARGV end
if last_value < #ARGV then keys[1] = 'full' end

local STORED_AT_ONCE, SWEEP_EVERY = 1000, 100
local must_store = next_value <= last_value
if must_store then
  local last = call('INCRBY', NUMBER, last_value - next_value + (spare_number and 0 or 1))
  local number = last - (last_value - next_value)
  if math.floor(last / SWEEP_EVERY) > math.floor((number - 1) / SWEEP_EVERY) then
    -- include: _sweep
    sweep()
  end
  if due_ms == 0 then mark_time(number) end
  for from = next_value, last_value, STORED_AT_ONCE do
    local chunk, keys_and_values = {}, {}
    for i = from, math.min(from + STORED_AT_ONCE - 1, last_value) do
      local key = QUEUE .. ':' .. (number + i - next_value)
      keys[#keys + 1], chunk[#chunk + 1] = key, key
      keys_and_values[#keys_and_values + 1], keys_and_values[#keys_and_values + 2] = key, ARGV[i]
      if record ~= '' then call('HSET', DELIVERIES, key, record) end
      if due_ms > 0 then
        call('ZADD', DELAYED, due_ms, key)
      elseif expires_ms > 0 then
        call('ZADD', EXPIRING, expires_ms, key)
      end
    end
    call('MSET', unpack(keys_and_values))
    if expires_ms > 0 then
      for _, key in ipairs(chunk) do call('PEXPIREAT', key, string.format('%.0f', expires_ms)) end
    end
    if due_ms == 0 then call('LPUSH', READY, unpack(chunk)) end
  end
elseif spare_number then
  call('DECR', NUMBER)
end
if fingerprint ~= '' then
  local first = call('GET', NUMBER) - count + 1
  call('SET', KEYS[#KEYS], string.format('%s %.0f %d', fingerprint, first, count), 'PX', fingerprint_ms)
end
if due_ms > 0 then
  -- include: _schedule
  schedule(due_ms)
elseif must_store then
  wake()
end
if tapped then
  -- include: _tap
  local copy = copying(QUEUE, CHANNEL)
  for i = 2, #keys do copy(keys[i], ARGV[FIRST + i - 2], record) end
end
return keys
