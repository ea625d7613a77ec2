-- Drops all keys of these messages. A caller that knows that none of them has one of these says false: an entry in EXPIRING,
-- a record in DELIVERIES, a number of looks.
local function forget(keys, is_expiring, has_records, has_looks)
  local names = keys
  if has_looks ~= false then
    names = {}
    for i, key in ipairs(keys) do names[2 * i - 1], names[2 * i] = key, key .. ':refcount' end
  end
  call('DEL', unpack(names))
  if is_expiring ~= false then call('ZREM', EXPIRING, unpack(keys)) end
  if has_records ~= false then call('HDEL', DELIVERIES, unpack(keys)) end
end
