-- Starts a task that moves messages (see _moves). KEPT_MAX tasks are remembered.
-- ARGV: queue, clock, the task in JSON.
-- Returns the task in JSON, or nothing if another one runs.
-- include: _prelude
-- include: _task
-- include: _length
-- include: _schedule
local KEPT_MAX = 10
if call('HEXISTS', MOVES, 'active') == 1 then return nil end
local oldest, oldest_ms
for _, id in ipairs(call('HKEYS', MOVES)) do
  local started_ms = cjson.decode(call('HGET', MOVES, id)).started
  if not oldest or started_ms < oldest_ms then oldest, oldest_ms = id, started_ms end
end
if call('HLEN', MOVES) >= KEPT_MAX then call('HDEL', MOVES, oldest) end
local task = cjson.decode(ARGV[3])
task.started, task.to_move = now_ms(), length()
store_task(task)
call('HSET', MOVES, 'active', task.id)
schedule(now_ms(), QUEUE .. MOVE)
return cjson.encode(task)
