-- include: _flow
-- publish(key, value, expires_ms, record): sends a message to all live consumers, on every daemon. Returns whether any
-- daemon received it, and whether another message may be published (_flow.lua, rule 4). A message that was received
-- goes into the queue's history, if it keeps one. Its record precedes it, so that daemons that know no records deliver
-- the message without it.
local function announce(key, value, record)
  if record ~= '' then call(PUBLISH, CHANNEL, 'record ' .. key .. '\n' .. record) end
  if #value <= INLINE_MAX then return call(PUBLISH, CHANNEL, 'message ' .. key .. '\n' .. value) > 0 end
  if call(PUBLISH, CHANNEL, 'stored ' .. #value .. ' ' .. key) == 0 then return false end
  call('SET', key, value, 'PX', KEPT_MS)
  call('RPUSH', BESIDE, key)
  call('PEXPIRE', BESIDE, KEPT_MS)
  return true
end

-- Counts the bytes of a message that was published. Returns whether another may be published.
local function count_sent(size)
  local sent = call('HINCRBY', FLOW, 'sent', size)
  if sent == size then call('PEXPIRE', FLOW, KEPT_MS) end
  if math.floor(sent / STEP) == math.floor((sent - size) / STEP) then return true end
  -- include: _rounds
  local window, unconfirmed, is_open = flow_state()
  if not is_open then begin_round(unconfirmed) end
  if unconfirmed < window then return true end
  hold_back()
  return false
end

local function publish(key, value, expires_ms, record)
  if not announce(key, value, record) then return false, false end
  local count_max = setting('history')
  if count_max > 0 then
    -- include: _remember
    remember(key, value, expires_ms, record, count_max)
  end
  return true, count_sent(#value + #record + OVERHEAD)
end
