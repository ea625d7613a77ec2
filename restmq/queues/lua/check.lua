#!lua flags=no-writes,allow-oom,allow-stale
-- Asks Redis which commands this user may not call, and which this server does not have. Calls none of them.
-- ARGV: for each command the number of its words, then the words.
-- Returns {{command, …}: no right, {command, …}: no such command}, each command as one string.
local denied, unknown = {}, {}
local at = 1
while at <= #ARGV do
  local last = at + tonumber(ARGV[at])
  local known, allowed = pcall(redis.acl_check_cmd, unpack(ARGV, at + 1, last))
  if not allowed or not known then
    local into = known and denied or unknown
    into[#into + 1] = table.concat(ARGV, ' ', at + 1, last)
  end
  at = last + 1
end
return {denied, unknown}
