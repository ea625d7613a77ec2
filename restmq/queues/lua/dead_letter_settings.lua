-- The queues to which many queues' dead letters go.
-- KEYS: per queue: settings.
-- Returns for each the queue or ''.
local found = {}
for i, settings in ipairs(KEYS) do found[i] = redis.call('HGET', settings, 'dead_letter') or '' end
return found
