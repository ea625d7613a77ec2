-- A message's value, or nil. People can add entries by hand. An entry may name a key of another type, which is no
-- message and must not be dropped: then the second result is true. The script must not fail, or popped messages would
-- be lost.
local function value_of(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then return nil, true end
  return value or nil, false
end
