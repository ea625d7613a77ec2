-- include: _history
-- Publishes a marker on the channel, with the number of the last message and the last key of the history. A daemon that
-- receives it has received everything that was published before.
local function publish_marker(marker)
  local number, last_key = call('GET', NUMBER) or 0, call('LINDEX', HISTORY, -1) or ''
  call(PUBLISH, CHANNEL, 'mark ' .. marker .. ' ' .. number .. ' ' .. last_key)
end
