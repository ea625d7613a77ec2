-- Leased messages are given back: to the front, in their order, or to the dead letters.
-- ARGV: queue, clock, 1 if they reached nobody: then their deliveries don't count as failed, and those in front that are
-- older stay before them (see _front); then key, receipt, … the oldest first.
-- Returns {how many of these leases were in force, the queue for dead letters if there are some to go there, else ''}.
-- include: _prelude
-- include: _lease
-- include: _front
-- include: _wake
local blameless, released, keys = ARGV[3] == '1', 0, {}
for i = 4, #ARGV, 2 do keys[#keys + 1] = ARGV[i] end

local function release(i)
  if holds(keys[i], ARGV[2 * i + 3]) then
    fail(keys[i], blameless)
    released = released + 1
  end
end

if blameless then
  put_in_front(keys, release)
else
  for i = #keys, 1, -1 do release(i) end
end
wake()
return {released, dead_to_forward() and call('HGET', SETTINGS, 'dead_letter') or ''}
