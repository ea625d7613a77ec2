-- What every script of one queue begins with. KEYS are those of restmq/keys.py (QueueKeys), in its order; ARGV[1] is
-- the queue's name. What follows a script's own header begins at ARGV[2].
local QUEUES, NUMBER, READY, STATUS, POLICY, CHANNEL, TURNS, WAITERS, EXPIRING, TOTALS, SETTINGS, HISTORY, HISTORY_VALUES =
  unpack(KEYS)
local QUEUE = ARGV[1]
local call = redis.call

-- A script's time stands still while it runs, and it is the clock that expires keys.
local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function setting(name) return tonumber(call('HGET', SETTINGS, name) or 0) end
local function started() return call('GET', STATUS) ~= '0' end
local function broadcasts() return call('GET', POLICY) ~= '2' end

-- A message's own keys, all of them: its value, and how often it was looked at.
local function forget(key)
  call('DEL', key, key .. ':refcount')
  call('ZREM', EXPIRING, key)
end

-- Expired values are gone from Redis by themselves, but their entries still stand in the list.
local function length()
  return call('LLEN', READY) - call('ZCOUNT', EXPIRING, '-inf', '(' .. now_ms())
end
