-- include: _forwarding
-- Schedules the queue anew, after its messages changed in any way.
local function reschedule()
  local leased_ms = call('ZRANGE', LEASED, 0, 0, 'WITHSCORES')[2]
  local delayed_ms = call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')[2]
  local check_ms = string.match(call('GET', IDLE) or '', '^%d+')
  local nearest_ms = math.huge
  for _, at_ms in pairs({leased_ms or math.huge, delayed_ms or math.huge, check_ms or math.huge}) do
    nearest_ms = math.min(nearest_ms, tonumber(at_ms))
  end
  call('ZREM', DUE, QUEUE)
  if nearest_ms < math.huge then schedule(nearest_ms) end
  schedule_forwarding()
end
