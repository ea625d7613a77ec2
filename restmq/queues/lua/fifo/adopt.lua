-- Takes dead letters of another queue as new messages, in order; otherwise as the script that this replaces.
-- include: _prelude
-- include: _append
-- include: _wake
-- include: _retention
local KNOWN_MS = 86400000
local new = 0
for i = 3, #ARGV, 4 do
  local digest, value, expires_ms, record = unpack(ARGV, i, i + 3)
  if call('SET', QUEUE .. ':adopted:' .. digest, 1, 'NX', 'PX', KNOWN_MS) then
    local decoded = cjson.decode(record)
    append(value, record, group_of(decoded), expiry_here(decoded, expires_ms), 0)
    new = new + 1
  end
end
wake()
return new
