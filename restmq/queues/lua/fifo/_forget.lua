-- include: _groups
-- include: _wake
-- Drops all keys of these messages, which are not leased any more. If that is the end of leases, their groups may go on.
-- include plain: _forget
local forget_plainly = forget

local function forget(keys, ...)
  local groups = {}
  for _, key in ipairs(keys) do
    local group = group_of(record_of(key))
    call('ZREM', GROUPED, member_of(group, number_of(key)))
    call('ZREM', ORDERED, key)
    groups[group] = true
  end
  forget_plainly(keys, ...)
  for group in pairs(groups) do settle(group) end
  if unlocked then wake() end
end
