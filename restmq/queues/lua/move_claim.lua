-- Claims the next step of the task that moves messages (see _moves), if it is due.
-- ARGV: queue, clock, time in ms after which another daemon may claim it.
-- Returns the task in JSON, or nothing if the step is not due or there is no task.
-- allow-oom
-- include: _prelude
-- include: _task
local due_ms, task = call('ZSCORE', DUE, QUEUE .. MOVE), active_task()
if not task then call('ZREM', DUE, QUEUE .. MOVE) end
if not task or not due_ms or tonumber(due_ms) > now_ms() then return nil end
call('ZADD', DUE, now_ms() + ARGV[3], QUEUE .. MOVE)
return cjson.encode(task)
