-- Adds messages, in order. If the queue is started, broadcasts, has no backlog and is not held back (see _flow), a
-- message goes straight to the live consumers. If any daemon received it, it is delivered, and nothing is stored.
-- Otherwise the message becomes ready or, with a delay, delayed.
--
-- This is the busiest script. So it makes few calls, and functions only where they are needed. One call tells whether a
-- queue has any status, policy, settings, taps or waiters; most queues have none. MARKED exists for MARKED_MS after the times of
-- the queue were marked (see _age). Once per CHECK_EVERY messages, expired messages are swept out, and a queue that is
-- missing in QUEUE_SET gets into it.
--
-- KEYS: with a fingerprint one more at the end, to store it.
-- ARGV: queue, clock, options (see _options), then the values.
-- Returns {'', 'full' or 'conflict', key, …}. If full and not all or nothing, the first values were added.
-- durable
-- include: _prelude
-- include: _options
local STORED_AT_ONCE, CHECK_EVERY, MARKED_MS = 1000, 100, 100
local keys = {''}

-- include: _known
local status, policy, held, tapped, has_waiters, capacity = false, false, false, false, false, math.huge
local has_backlog = call('LLEN', READY) > 0
if call('EXISTS', STATUS, POLICY, HELD, TAPPED, WAITERS, SETTINGS) > 0 then
  status, policy, held, tapped = unpack(call('MGET', STATUS, POLICY, HELD, TAPPED))
  has_waiters, capacity = true, tonumber(call('HGET', SETTINGS, 'max_length') or math.huge)
end
local is_live = due_ms == 0 and status ~= '0' and policy ~= '2' and not held and not has_backlog

if capacity < math.huge then
  -- include: _length
  -- include: _rounds
  local function all_can_be_published()
    local window, unconfirmed = flow_state()
    for i = first_value, #ARGV do unconfirmed = unconfirmed + #ARGV[i] + #record + OVERHEAD end
    return unconfirmed < window and call('PUBSUB', NUMSUB, CHANNEL)[2] > 0
  end

  capacity = math.max(0, capacity - length() - call('ZCARD', LEASED) - call('ZCARD', DELAYED))
  if options.whole and capacity < count and not (is_live and all_can_be_published()) then return {'full'} end
end

local last = count == 1 and call('INCR', NUMBER) or call('INCRBY', NUMBER, count)
local must_check = last == count or last % CHECK_EVERY < count
if must_check and call('SADD', QUEUE_SET, QUEUE) == 1 then
  -- include: _begin
  -- include: _watch
  local is_new = last == count
  if is_new then call('DEL', NUMBER) end
  begin(NUMBER, LAST_NUMBER, TOTALS)
  if is_new then last = call('INCRBY', NUMBER, count) end
  watch(options.expires or 0)
end
local prefix, number_before = QUEUE .. ':', last - #ARGV
local function key_of(i) return prefix .. (number_before + i) end

local next_value, is_heard = first_value, true
if is_live then
  -- include: _publish
  repeat
    is_heard, is_live = publish(key_of(next_value), ARGV[next_value], expires_ms, record)
    if is_heard then
      keys[#keys + 1] = key_of(next_value)
      next_value = next_value + 1
    end
  until not is_live or next_value > #ARGV
  finish_publishing()
  if next_value > first_value then call('HINCRBY', TOTALS, 'out', next_value - first_value) end
end
local last_value = options.whole and #ARGV or math.min(#ARGV, next_value - 1 + capacity)
if last_value < #ARGV then
  keys[1] = 'full'
  call('DECRBY', NUMBER, #ARGV - last_value)
end

if next_value <= last_value then
  local is_marked = has_backlog and call('EXISTS', MARKED) == 1
  if must_check then
    -- include: _sweep
    is_marked = not sweep() and is_marked
  end
  if due_ms == 0 and not is_marked then
    -- include: _age
    mark_time(number_before + next_value)
    if has_backlog and ARGV[2] == '' then call('SET', MARKED, 1, 'PX', MARKED_MS) end
  end
  if next_value == #ARGV and due_ms == 0 and expires_ms == 0 and record == '' then -- the usual case, without tables
    local key = key_of(next_value)
    keys[#keys + 1] = key
    call('SET', key, ARGV[next_value])
    call('LPUSH', READY, key)
  else
    local size, first_stored, pairs_size, keys_and_values = #keys, #keys + 1, 0, {}
    for i = next_value, last_value do
      local key = key_of(i)
      size, pairs_size = size + 1, pairs_size + 2
      keys[size], keys_and_values[pairs_size - 1], keys_and_values[pairs_size] = key, key, ARGV[i]
      if record ~= '' then call('HSET', DELIVERIES, key, record) end
      if due_ms > 0 then
        call('ZADD', DELAYED, due_ms, key)
      elseif expires_ms > 0 then
        call('ZADD', EXPIRING, expires_ms, key)
      end
      if i == last_value or pairs_size == 2 * STORED_AT_ONCE then
        call('MSET', unpack(keys_and_values))
        if expires_ms > 0 then
          for j = first_stored, size do call('PEXPIREAT', keys[j], string.format('%.0f', expires_ms)) end
        end
        if due_ms == 0 then call('LPUSH', READY, unpack(keys, first_stored)) end
        first_stored, pairs_size, keys_and_values = size + 1, 0, {}
      end
    end
  end
  if due_ms > 0 then
    -- include: _schedule
    schedule(due_ms)
  else
    -- include: _wake_consumers
    local is_held = held or next_value > first_value -- the window is used up
    if not (is_heard and wake_consumers(status, policy, is_held)) and has_waiters then
      -- include: _wake_waiter
      wake_waiter()
    end
  end
end
if options.fingerprint then
  local known = string.format('%s %.0f %d', options.fingerprint, last - count + 1, count)
  call('SET', KEYS[#KEYS], known, 'PX', options.fingerprint_ms)
end
if tapped then
  -- include: _tap
  local copy = copying(QUEUE, CHANNEL)
  for i = 2, #keys do copy(keys[i], ARGV[first_value + i - 2], record) end
end
return keys
