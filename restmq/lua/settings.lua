-- Changes settings of the queue, all of them at once.
-- ARGV: queue, then name, number, …; 0 takes a setting away.
-- include: _prelude
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '0' then call('HDEL', SETTINGS, ARGV[i]) else call('HSET', SETTINGS, ARGV[i], ARGV[i + 1]) end
end
local too_many = call('LLEN', HISTORY) - setting('history')
for _ = 1, too_many do call('HDEL', HISTORY_VALUES, call('LPOP', HISTORY)) end
