-- KEYS: status, policy, settings
-- What every script of one queue begins with. KEYS are named above and in each part, after restmq/store/keys.py (QueueKeys);
-- ARGV[1] is the queue's name, ARGV[2] the time in ms since 1970 or '' for Redis' own clock. What follows a script's
-- own header begins at ARGV[3].
local QUEUE, CLOCK = ARGV[1], ARGV[2]
local call = redis.call

-- A script's time stands still while it runs, and it is the clock that expires keys.
local function now_ms()
  if CLOCK ~= '' then return tonumber(CLOCK) end
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function setting(name) return tonumber(call('HGET', SETTINGS, name) or 0) end
local function started() return call('GET', STATUS) ~= '0' end
local function broadcasts() return call('GET', POLICY) ~= '2' end
