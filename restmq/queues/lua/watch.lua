-- Watches queues that are to end (see _idle) and are not watched yet: those that are older than --queue-expires, and those
-- that a daemon of another version took off DUE.
-- ARGV: time in ms since 1970 or '', seconds for queues without the setting, then the queues' names.
-- allow-oom
-- include: _loop
local at_ms = tonumber(ARGV[1]) or now_ms
local function now_ms() return at_ms end

for i = 3, #ARGV do
  local QUEUE = ARGV[i]
  -- include: _watch_again
end
