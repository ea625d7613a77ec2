-- As the part that this replaces, by numbers.
local function from_front(first, last) return call('ZRANGE', ORDERED, first, last) end

local function from_end(first, last) return call('ZRANGE', ORDERED, first, last, 'REV') end

local function leave(key) return call('ZREM', ORDERED, key) == 1 end
