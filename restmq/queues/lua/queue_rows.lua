-- Rows of the list of queues.
-- ARGV: 1 for all columns or 0 for the first three, then the queues' names.
-- Returns a flat list, per queue: number of ready messages, 1 if started or 0, 1 broadcast or 2 roundrobin; number of
-- leased, delayed and dead messages, number of messages added, number gone out, time of the oldest ready message in ms
-- since 1970, or nil if there is none or it is unknown.
-- include: _loop
local function add(number) found[#found + 1] = number end -- Redis turns false into nil

for i = 2, #ARGV do
  local QUEUE = ARGV[i]
  -- include: _row
end
return found
