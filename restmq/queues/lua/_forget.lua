-- Drops all keys of these messages.
local function forget(keys)
  local dropped = {}
  for i, key in ipairs(keys) do dropped[2 * i - 1], dropped[2 * i] = key, key .. ':refcount' end
  call('DEL', unpack(dropped))
  call('ZREM', EXPIRING, unpack(keys))
  call('HDEL', DELIVERIES, unpack(keys))
end
