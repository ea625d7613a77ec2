-- Counters of many queues, for monitoring.
-- ARGV: the queues' names.
-- Returns a flat list, per queue: number of messages added; its totals out, leased, acked, redelivered, expired and
-- dead; number of messages ready, leased, delayed, dead; 1 if started or 0; age in ms of the oldest ready message, or
-- -1 if there is none or its age is unknown.
-- include: _loop
local function add(number) found[#found + 1] = tonumber(number or 0) end

for i = 1, #ARGV do
  local QUEUE = ARGV[i]
  -- include: _counters
end
return found
