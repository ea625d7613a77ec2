-- Notes the outcome of a step of a task that moves messages, or cancels the task.
-- ARGV: queue, clock, the task's id, number of messages moved, its status from now on, the reason if it failed, time in ms
-- until its next step.
-- Returns the task in JSON, or nothing if there is no such task. A task that has ended keeps its status.
-- allow-oom
-- include: _prelude
-- include: _task
-- include: _schedule
local stored = call('HGET', MOVES, ARGV[3])
if not stored then return nil end
local task = cjson.decode(stored)
task.moved = task.moved + ARGV[4]
if call('HGET', MOVES, 'active') ~= task.id then
  store_task(task)
elseif ARGV[5] == 'RUNNING' then
  store_task(task)
  call('ZREM', DUE, QUEUE .. MOVE)
  schedule(now_ms() + ARGV[7], QUEUE .. MOVE)
else
  end_task(task, ARGV[5], ARGV[6])
end
return cjson.encode(task)
