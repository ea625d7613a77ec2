-- include: _forwarding
-- Schedules the queue anew, after its messages changed in any way.
local function reschedule()
  local leased_ms = call('ZRANGE', LEASED, 0, 0, 'WITHSCORES')[2]
  local delayed_ms = call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')[2]
  local nearest_ms = math.min(tonumber(leased_ms or math.huge), tonumber(delayed_ms or math.huge))
  call('ZREM', DUE, QUEUE)
  if nearest_ms < math.huge then schedule(nearest_ms) end
  schedule_forwarding()
end
