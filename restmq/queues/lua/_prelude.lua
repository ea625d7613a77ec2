-- Begins every script of one queue. READY and other names in capitals are its keys (restmq/store/keys.py). ARGV[1] is
-- the queue's name, ARGV[2] the time in ms since 1970, or '' for Redis' own clock. A script's own arguments begin at
-- ARGV[3].
local QUEUE, CLOCK = ARGV[1], ARGV[2]
local call = redis.call
-- Outcomes of a script, see restmq/queues/base.py (State).
local DONE, MORE, PROMOTE_FIRST, HELD_BACK = 0, 1, 2, 3

-- The clock stands still while a script runs; Redis expires keys by the same clock.
local function now_ms()
  if CLOCK ~= '' then return tonumber(CLOCK) end
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function setting(name) return tonumber(call('HGET', SETTINGS, name) or 0) end
local function started() return call('GET', STATUS) ~= '0' end
local function broadcasts() return call('GET', POLICY) ~= '2' end
