-- include: _record
-- include: _number
-- The time at which the first ready message was sent, or nil.
local function oldest_mark()
  local first = call('ZRANGE', ORDERED, 0, 0)[1]
  return first and record_of(first).sent
end
