-- include: _flow
local function hold_back(ms) call('SET', HELD, 1, 'PX', ms or HELD_MS) end

-- Returns the bytes that are still unconfirmed.
local function end_round(is_overdue)
  local marked, grant, stored = unpack(call('HMGET', FLOW, 'marked', 'grant', 'stored'))
  call('HDEL', FLOW, 'pending', 'grant')
  if grant then call('HSET', FLOW, 'window', grant) end
  local beside = stored ~= '0' and call('LPOP', BESIDE, stored)
  if beside and not is_overdue then
    call('UNLINK', unpack(beside))
  elseif beside then
    for _, key in ipairs(beside) do call('PEXPIRE', key, LATE_MS) end
  end
  call('DEL', HELD)
  return call('HINCRBY', FLOW, 'sent', -marked)
end

local function begin_round(sent)
  local round = call('HINCRBY', FLOW, 'round', 1)
  local missing = call('HGET', FLOW, 'missing') or 0
  local pending = math.max(1, call(PUBLISH, CHANNEL, 'sync ' .. round) - missing)
  local since = string.format('%.0f', now_ms())
  call('HSET', FLOW, 'marked', sent, 'stored', call('LLEN', BESIDE), 'pending', pending, 'since', since)
  call('PEXPIRE', FLOW, KEPT_MS)
end

-- The window, the unconfirmed bytes, and whether a round is open. Ends a round that is overdue.
local function flow_state()
  local window, sent, pending, since = unpack(call('HMGET', FLOW, 'window', 'sent', 'pending', 'since'))
  local age_ms = pending and now_ms() - since or 0
  if age_ms > HELD_MS or age_ms < -HELD_MS_MAX then
    call('HINCRBY', FLOW, 'missing', pending)
    sent, pending = end_round(true), nil
  end
  return tonumber(window or FIRST_WINDOW), tonumber(sent or 0), pending
end
