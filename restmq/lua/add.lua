-- Adds messages, in order. Where the queue is started, broadcasts and has no backlog, a message goes straight to the
-- consumers that listen: if any heard it, that was its delivery and nothing is stored. Else it waits in the queue, or,
-- if it is delayed, beside it.
-- KEYS: queue_set, number, totals; one more at the end if there is a fingerprint: where it is kept.
-- ARGV: queue, clock, ttl in ms or 0, delay in ms or 0, 1 if it is all or nothing, fingerprint or '', for how many ms
-- the fingerprint is kept, then the values.
-- Returns {'' or 'full' or 'conflict', key, …}. Where it is full and not all or nothing, the first values were added.
-- durable
-- include: _prelude
-- include: _ready
-- include: _due
-- include: _wake
-- include: _publish
-- include: _age
local ttl_ms, delay_ms, all_or_nothing = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local fingerprint, kept_ms = ARGV[6], ARGV[7]
local FIRST = 8
local count = #ARGV - FIRST + 1
local expires_ms = ttl_ms > 0 and now_ms() + ttl_ms or 0
local due_ms = delay_ms > 0 and now_ms() + delay_ms or 0
local empty = call('LLEN', READY) == 0
local live = delay_ms == 0 and empty and started() and broadcasts()
local keys, stored = {''}, false

if fingerprint ~= '' then
  local seen, first, seen_count = string.match(call('GET', KEYS[#KEYS]) or '', '^(%S+) (%d+) (%d+)$')
  if seen and seen ~= fingerprint then return {'conflict'} end
  if seen then
    for number = tonumber(first), first + seen_count - 1 do keys[#keys + 1] = QUEUE .. ':' .. string.format('%.0f', number) end
    return keys
  end
end

local room = setting('max_length')
if room == 0 then
  room = math.huge
else
  room = room - length() - call('ZCARD', LEASED) - call('ZCARD', DELAYED)
  if all_or_nothing and room < count and not (live and call('PUBSUB', 'NUMSUB', CHANNEL)[2] > 0) then
    return {'full'}
  end
end

local function store(key, value, number)
  if expires_ms > 0 then
    call('SET', key, value, 'PXAT', string.format('%.0f', expires_ms))
  else
    call('SET', key, value)
  end
  if due_ms > 0 then
    call('ZADD', DELAYED, due_ms, key)
    return
  end
  if expires_ms > 0 then call('ZADD', EXPIRING, expires_ms, key) end
  if not stored then mark_time(number) end
  call('LPUSH', READY, key)
  stored = true
end

call('SADD', QUEUE_SET, QUEUE)
for i = FIRST, #ARGV do
  if not live and room <= 0 and not all_or_nothing then
    keys[1] = 'full'
    break
  end
  local number = call('INCR', NUMBER)
  local key = QUEUE .. ':' .. string.format('%.0f', number)
  keys[#keys + 1] = key
  if live and publish(key, ARGV[i], expires_ms) then
    call('HINCRBY', TOTALS, 'out', 1)
  else
    live, room = false, room - 1
    store(key, ARGV[i], number)
  end
end
if fingerprint ~= '' then
  local first = call('GET', NUMBER) - count + 1
  call('SET', KEYS[#KEYS], string.format('%s %.0f %d', fingerprint, first, count), 'PX', kept_ms)
end
if due_ms > 0 then look_at(due_ms) end
if stored then wake() end
return keys
