-- The number at the end of a message's key.
local function number_of(key) return tonumber(string.match(key, ':(%d+)$') or 0) end
