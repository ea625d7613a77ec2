-- include: _flow
-- announce(key, value, record, beside_key): publishes a message on the channel; a large value goes beside it, to
-- beside_key. Returns whether any daemon received it. The message's record precedes it, so that daemons that know no
-- records deliver the message without it.
local function announce(key, value, record, beside_key)
  if record ~= '' then call(PUBLISH, CHANNEL, 'record ' .. key .. '\n' .. record) end
  if #value <= INLINE_MAX then return call(PUBLISH, CHANNEL, 'message ' .. key .. '\n' .. value) > 0 end
  if call(PUBLISH, CHANNEL, 'stored ' .. #value .. ' ' .. key) == 0 then return false end
  call('SET', beside_key, value, 'PX', KEPT_MS)
  call('RPUSH', BESIDE, beside_key)
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
