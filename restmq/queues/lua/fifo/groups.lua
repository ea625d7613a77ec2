-- The groups of a FIFO queue.
-- Returns the number of groups that can be served, the number of those that are locked, then the locked groups, those
-- whose leases end first, each with its number of leased messages. Shows those of the first SEARCHED leased messages.
-- include: _prelude
-- include: _groups
local SEARCHED = 100
local found, known = {call('ZCARD', GROUPS), call('HLEN', LOCKED)}, {}
for _, key in ipairs(call('ZRANGE', LEASED, 0, SEARCHED - 1)) do
  local group = group_of(record_of(key))
  if not known[group] then
    known[group] = true
    found[#found + 1], found[#found + 2] = group, tonumber(call('HGET', LOCKED, group) or 0)
  end
end
return found
