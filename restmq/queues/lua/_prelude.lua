-- Begins every script of one queue. QUEUE is the queue's name, ARGV[1]; READY and other names in capitals are its keys (see
-- restmq/store/scripts.py). ARGV[2] is the time in ms since 1970, or '' for Redis' own clock. A script's own arguments
-- begin at ARGV[3].
local call = redis.call
-- Outcomes of a script, see restmq/queues/base.py (State).
local DONE, MORE, PROMOTE_FIRST, HELD_BACK = 0, 1, 2, 3

-- The same time in all of the script: the clock of Redis 7.0 goes on while a script runs.
local time_ms = tonumber(ARGV[2])

local function now_ms()
  if not time_ms then
    local time = call('TIME')
    time_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return time_ms
end
