-- include: _moves
local function active_task()
  local id = call('HGET', MOVES, 'active')
  return id and cjson.decode(call('HGET', MOVES, id))
end

local function store_task(task) call('HSET', MOVES, task.id, cjson.encode(task)) end

-- Ends the task that runs.
local function end_task(task, status, failure)
  task.status, task.failure = status, failure
  store_task(task)
  call('HDEL', MOVES, 'active')
  call('ZREM', DUE, QUEUE .. MOVE)
end
