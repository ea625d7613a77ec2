-- include: _groups
-- include plain: _start_leases
local start_leases_plainly = start_leases

-- Also locks the groups of the messages.
local function start_leases(popped, ...)
  local counts, receipts, records = start_leases_plainly(popped, ...)
  for _, key in ipairs(popped.keys) do
    local group = group_of(record_of(key))
    call('HINCRBY', LOCKED, group, 1)
    call('ZREM', GROUPS, group)
  end
  return counts, receipts, records
end
