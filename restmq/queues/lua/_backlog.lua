-- include: _pop
-- include: _take_out
-- include: _wake
-- include: _rounds
-- include: _publish
-- publish_backlog(daemon): publishes ready messages on the channel, as many as the window allows (_flow.lua). If the
-- window allows more, a notice on the daemon's own channel, behind the messages, makes it attend again. Returns a
-- state.
local PUBLISHED_MAX = 200

-- A message's record for its consumers; '' if it has nothing that they are shown.
local function shown(record)
  for _, name in ipairs({'"sent":', '"origin":'}) do
    if record and string.find(record, name, 1, true) then return record end
  end
  return ''
end

local function publish_backlog(daemon)
  local held_until_ms = call('PEXPIRETIME', HELD)
  if held_until_ms > now_ms() + HELD_MS_MAX then
    call('DEL', HELD) -- the clock was set back (_flow.lua, rule 5)
  elseif held_until_ms > 0 then
    return HELD_BACK
  end
  if call('PUBSUB', NUMSUB, CHANNEL)[2] == 0 then
    wake()
    return DONE
  end
  local window, unconfirmed, is_round_open = flow_state()
  if unconfirmed >= window then
    if not is_round_open then begin_round(unconfirmed) end
    hold_back()
    return HELD_BACK
  end
  local popped = pop(PUBLISHED_MAX, window - unconfirmed)
  local expiries = popped.expiries or {}
  local _, records = take_out(popped)
  local is_open = true
  for i, key in ipairs(popped.keys) do
    local _, more = publish(key, popped.values[i], expiries[i] or 0, shown(records and records[i]))
    is_open = is_open and more
  end
  is_open = finish_publishing() and is_open
  if call('LLEN', READY) == 0 then return DONE end
  if not is_open then return HELD_BACK end
  if #popped.keys > 0 and call(PUBLISH, daemon, QUEUE) > 0 then return DONE end
  return MORE
end
