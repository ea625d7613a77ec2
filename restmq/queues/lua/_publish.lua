-- include: _announce
-- include: _setting
-- publish(key, value, expires_ms, record): sends a message to all live consumers, on every daemon. Returns whether any
-- daemon received it, and whether another message may be published (_flow.lua, rule 4). A message that was received
-- goes into the queue's history, if it keeps one.
--
-- FLOW and the history change for several messages at once. So finish_publishing() must be called after the last
-- message. It, too, returns whether another message may be published.
local UNCOUNTED_MAX = 4096
local uncounted, history_max, keys_heard, fields_heard, bytes_heard = 0, nil, nil, nil, 0

local function finish_publishing()
  if uncounted == 0 then return true end
  local size = uncounted
  uncounted = 0
  if history_max > 0 then
    -- include: _remember
    remember(keys_heard, fields_heard, bytes_heard, history_max)
    keys_heard, fields_heard, bytes_heard = {}, {}, 0
  end
  return count_sent(size)
end

local function publish(key, value, expires_ms, record)
  if not announce(key, value, record, key) then return false, false end
  if not history_max then history_max, keys_heard, fields_heard = setting('history'), {}, {} end
  if history_max > 0 then
    local entry, size = string.format('%.0f', expires_ms) .. ' ' .. value, #fields_heard
    keys_heard[#keys_heard + 1], fields_heard[size + 1], fields_heard[size + 2] = key, key, entry
    if record ~= '' then fields_heard[size + 3], fields_heard[size + 4] = key .. ' record', record end
    bytes_heard = bytes_heard + #entry + #record
  end
  uncounted = uncounted + #value + #record + OVERHEAD
  if uncounted < UNCOUNTED_MAX then return true, true end
  return true, finish_publishing()
end
