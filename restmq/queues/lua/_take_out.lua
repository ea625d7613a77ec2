-- include: _columns
-- include: _forget
-- Removes popped messages for good. Returns them as columns.
local function take_out(keys, values, expiries)
  if #keys == 0 then return {} end
  local refcounts = {}
  for i, key in ipairs(keys) do refcounts[i] = key .. ':refcount' end
  local looks = call('MGET', unpack(refcounts))
  local records = call('EXISTS', DELIVERIES) == 1 and call('HMGET', DELIVERIES, unpack(keys)) or {}
  forget(keys)
  call('HINCRBY', TOTALS, 'out', #keys)
  return as_columns(keys, values, looks, expiries, {}, records)
end
