-- Changes what SQS knows of a queue, and settings, in one step.
-- ARGV: queue, clock, seconds as in settings, number of fields, name and value of each field of SQS (see _sqs), '' to
-- remove it, then of each setting, 0 or '' to reset it.
-- Returns 1, or 0 if there is no such queue.
-- allow-oom
-- include: _prelude
-- include: _sqs
-- include: _set
-- include: _watch
-- include: _forwarding
if not exists() then return 0 end
local last_field = 4 + 2 * ARGV[4]
set(SQS, 5, last_field)
set(SETTINGS, last_field + 1, #ARGV, true)
call('HSET', SQS, 'modified', string.format('%.0f', now_ms()))
watch(ARGV[3])
if forward_to() then schedule(0) end
return 1
