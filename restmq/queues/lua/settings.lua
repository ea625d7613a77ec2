-- Changes settings of the queue in one step.
-- KEYS: history, history_values
-- ARGV: queue, clock, then name, value, …; 0 or '' resets a setting to its default.
-- include: _prelude
-- include: _due
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == '0' or ARGV[i + 1] == '' then
    call('HDEL', SETTINGS, ARGV[i])
  else
    call('HSET', SETTINGS, ARGV[i], ARGV[i + 1])
  end
end
local excess = call('LLEN', HISTORY) - setting('history')
for _ = 1, excess do call('HDEL', HISTORY_VALUES, call('LPOP', HISTORY)) end
if must_forward() then schedule(0) end
