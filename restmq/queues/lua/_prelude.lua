-- Begins every script of one queue. READY and other names in capitals are its keys (restmq/store/keys.py). ARGV[1] is
-- the queue's name, ARGV[2] the time in ms since 1970, or '' for Redis' own clock. A script's own arguments begin at
-- ARGV[3].
local QUEUE, CLOCK = ARGV[1], ARGV[2]
local call = redis.call
-- Outcomes of a script, see restmq/queues/base.py (State).
local DONE, MORE, PROMOTE_FIRST, HELD_BACK = 0, 1, 2, 3

-- The same time in all of the script: the clock of Redis 7.0 goes on while a script runs.
local now = tonumber(CLOCK)
local function now_ms()
  if not now then
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return now
end

local function setting(name) return tonumber(call('HGET', SETTINGS, name) or 0) end
local function started() return call('GET', STATUS) ~= '0' end
local function broadcasts() return call('GET', POLICY) ~= '2' end
