-- include: _idle
-- include: _schedule
-- Begins to watch the queue, if it is to end, from now on.
local function watch(default_seconds)
  local seconds = idle_seconds(default_seconds)
  if seconds == 0 then
    call('DEL', IDLE)
  else
    local check_ms = now_ms() + seconds * 1000
    call('SET', IDLE, string.format('%.0f -', check_ms))
    schedule(check_ms)
  end
end
