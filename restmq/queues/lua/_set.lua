-- include: _sources
-- Sets fields of a hash, given as name, value, … in ARGV. Those whose value is '' or, with zero_resets, 0 are removed.
local function set(hash, first, last, zero_resets)
  for i = first, last, 2 do
    local name, value = ARGV[i], ARGV[i + 1]
    if name == 'dead_letter' then set_dead_letter(value) end
    if value == '' or zero_resets and value == '0' then
      call('HDEL', hash, name)
    else
      call('HSET', hash, name, value)
    end
  end
end
