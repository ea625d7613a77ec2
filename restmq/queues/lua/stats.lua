-- One queue in numbers.
-- ARGV: queue, clock.
-- Returns {state; number of messages ready, leased, delayed, dead; 1 if started or 0; 1 broadcast or 2 roundrobin; age
-- in ms of the oldest ready message, or -1 if there is none or its age is unknown; number of the last message; name and
-- number of each total, …}.
-- include: _prelude
-- include: _started
-- include: _broadcasts
-- include: _overdue
-- include: _length
-- include: _age
if overdue() then return {PROMOTE_FIRST} end
local ready = length()
local oldest = ready > 0 and oldest_mark(READY, EXPIRING, TIMES, now_ms())
return {
  DONE, ready, call('ZCARD', LEASED), call('ZCARD', DELAYED), call('ZCARD', DEAD), started() and 1 or 0,
  broadcasts() and 1 or 2, oldest and math.max(0, now_ms() - tonumber(oldest)) or -1, tonumber(call('GET', NUMBER) or 0),
  unpack(call('HGETALL', TOTALS)),
}
