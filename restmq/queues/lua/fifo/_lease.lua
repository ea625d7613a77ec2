-- include: _groups
-- include plain: _lease
local end_leases_plainly = end_leases

-- Also unlocks the groups without other leased messages. The caller must settle them.
local function end_leases(keys, receipts)
  for _, key in ipairs(keys) do
    local group = group_of(record_of(key))
    if call('HINCRBY', LOCKED, group, -1) < 1 then
      call('HDEL', LOCKED, group)
      unlocked = true
    end
  end
  return end_leases_plainly(keys, receipts)
end
