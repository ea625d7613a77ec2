-- Makes the queue, or another name in DUE, due at this time at the latest. Tells the daemons if no other queue is due earlier.
local function schedule(at_ms, name)
  name = name or QUEUE
  local scheduled_ms = call('ZSCORE', DUE, name)
  if scheduled_ms and tonumber(scheduled_ms) <= at_ms then return end
  local nearest_ms = call('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2]
  call('ZADD', DUE, at_ms, name)
  if not nearest_ms or at_ms < tonumber(nearest_ms) then
    call(PUBLISH, DUE_CHANNEL, string.format('%.0f', math.max(0, at_ms - now_ms())))
  end
end
