-- include: _history
-- include: _number
-- The number of the last message that was broadcast. If the newest messages wait in the backlog, it is the one before
-- them.
local function last_published()
  local number, count = tonumber(call('GET', NUMBER) or 0), call('LLEN', READY)
  local newest, oldest = call('LINDEX', READY, 0), call('LINDEX', READY, -1)
  local is_newest = newest and number_of(newest) == number and number_of(oldest) == number - count + 1
  return is_newest and number - count or number
end

-- Publishes a marker on the channel, with the number of the last message and the last key of the history. A daemon that
-- receives it has received everything that was published before.
local function publish_marker(marker)
  local last_key = call('LINDEX', HISTORY, -1) or ''
  call(PUBLISH, CHANNEL, string.format('mark %s %.0f %s', marker, last_published(), last_key))
end
