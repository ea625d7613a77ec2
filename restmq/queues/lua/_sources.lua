-- DEAD_LETTERS has, for each queue with the setting dead_letter, the other queue's name, a line end, and the name of this
-- one, sorted; all scores are 0.
local function set_dead_letter(other)
  local before = call('HGET', SETTINGS, 'dead_letter')
  if before then call('ZREM', DEAD_LETTERS, before .. '\n' .. QUEUE) end
  if other ~= '' then call('ZADD', DEAD_LETTERS, 0, other .. '\n' .. QUEUE) end
end
