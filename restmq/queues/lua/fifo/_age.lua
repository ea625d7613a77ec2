-- include: _oldest
-- A message's record has the time at which it was sent, so no marks are needed.
local function mark_time() end
