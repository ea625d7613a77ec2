-- include: _idle
-- include: _schedule
-- Begins to watch the queue, if it is to end, from now on.
local function watch(default_seconds)
  local check_ms = now_ms() + idle_seconds(default_seconds) * 1000
  if check_ms == now_ms() then
    call('DEL', IDLE)
  else
    call('SET', IDLE, string.format('%.0f -', check_ms))
    schedule(check_ms)
  end
end
