-- include: _groups
-- include plain: _lease
local end_lease_plainly = end_lease

-- Also unlocks the group, if this was its last leased message. The caller must settle the group.
local function end_lease(key)
  local group = group_of(record_of(key))
  if call('HINCRBY', LOCKED, group, -1) < 1 then
    call('HDEL', LOCKED, group)
    unlocked = true
  end
  return end_lease_plainly(key)
end
