-- include: _groups
-- include: _expiry
-- join(key, record): puts a delayed message or a dead letter into its place. Returns false if it has expired.
local function join(key, record)
  if not becomes_ready(key) then return false end
  call('HSET', DELIVERIES, key, cjson.encode(record))
  take_place(key, group_of(record))
  settle(group_of(record))
  return true
end
