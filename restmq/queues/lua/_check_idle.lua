-- include: _idle
-- include: _length
-- include: _remove
local IN_USE = 'in use'

local function seen()
  if length() + call('ZCARD', LEASED) + call('ZCARD', DELAYED) + call('ZCARD', DEAD) + call('LLEN', WAITERS) > 0
    or call('PUBSUB', NUMSUB, CHANNEL)[2] > 0 then
    return IN_USE
  end
  return (call('GET', NUMBER) or '0') .. ' ' .. table.concat(call('HGETALL', TOTALS), ' ')
end

-- Checks the queue, if it is watched: removes it, or notes what it has seen.
local function check_idle(record, default_seconds)
  local check_ms, before = string.match(record, '^(%d+) (.*)$')
  local seconds, now = idle_seconds(default_seconds), seen()
  if seconds == 0 then
    call('DEL', IDLE)
  elseif now == IN_USE or now ~= before then
    call('SET', IDLE, string.format('%.0f %s', now_ms() + seconds * 1000, now))
  elseif now_ms() >= tonumber(check_ms) then
    remove()
  end
end
