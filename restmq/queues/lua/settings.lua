-- Changes settings of the queue in one step.
-- ARGV: queue, clock, seconds after which queues without the setting `expires` end or 0, then name, value, …; 0 or ''
-- resets a setting to its default.
-- allow-oom
-- include: _prelude
-- include: _set
-- include: _setting
-- include: _forwarding
-- include: _fit_history
-- include: _watch
set(SETTINGS, 4, #ARGV, true)
fit_history(setting('history'), tonumber(call('HGET', SETTINGS, 'history_bytes') or HISTORY_BYTES_DEFAULT))
watch(ARGV[3])
if forward_to() then schedule(0) end
