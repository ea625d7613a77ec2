-- Dead letters go back to the end of their queue, the one that died first before the others, as if they had never been
-- delivered; where they come from stays, if it is another queue. A bounded number a call.
-- ARGV: queue, clock, the key of the one that is meant, or '' for all.
-- Returns {how many went back, how many are left}.
-- include: _prelude
-- include: _lease
-- include: _wake
-- include: _age
local AT_MOST = 500
local wanted = ARGV[3] == '' and call('ZRANGE', DEAD, 0, AT_MOST - 1) or {ARGV[3]}
local moved = 0
for _, key in ipairs(wanted) do
  if call('ZREM', DEAD, key) == 1 then
    forget_deliveries(key, record_of(key))
    if moved == 0 then mark_time(number_of(key)) end
    if wait_in_line('LPUSH', key) then moved = moved + 1 end
  end
end
wake()
return {moved, ARGV[3] == '' and call('ZCARD', DEAD) or 0}
