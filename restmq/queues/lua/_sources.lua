-- DEAD_LETTERS has a member for each queue with the setting dead_letter: the name of its dead-letter queue, a line end,
-- and its own name. All scores are 0, so the members are sorted by name.
local function set_dead_letter(other)
  local before = call('HGET', SETTINGS, 'dead_letter')
  if before then call('ZREM', DEAD_LETTERS, before .. '\n' .. QUEUE) end
  if other ~= '' then call('ZADD', DEAD_LETTERS, 0, other .. '\n' .. QUEUE) end
end
