-- Changes settings of the queue, all of them at once.
-- KEYS: history, history_values
-- ARGV: queue, clock, then name, value, …; 0 or '' takes a setting away.
-- include: _prelude
-- include: _due
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == '0' or ARGV[i + 1] == '' then
    call('HDEL', SETTINGS, ARGV[i])
  else
    call('HSET', SETTINGS, ARGV[i], ARGV[i + 1])
  end
end
local too_many = call('LLEN', HISTORY) - setting('history')
for _ = 1, too_many do call('HDEL', HISTORY_VALUES, call('LPOP', HISTORY)) end
if dead_to_forward() then look_at(0) end
