-- copy(key, value, record): copies a message that is put into the queue for its taps, if it has any (_tap.lua).
local function copy() end
if call('EXISTS', TAPPED) == 1 then
  -- include: _tap
  copy = copying(QUEUE, CHANNEL)
end
