-- A message's number: its key ends in it.
local function number_of(key) return tonumber(string.match(key, ':(%d+)$') or 0) end
