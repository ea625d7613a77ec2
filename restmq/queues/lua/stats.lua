-- One queue in numbers.
-- ARGV: queue, clock.
-- Returns {2 if what is due must come first, else 0; how many wait, are leased, delayed, dead; 1 if started or 0; 1 broadcast or 2
-- roundrobin; the age in ms of the oldest that waits, or -1 if nothing waits or it is unknown; the last number given; name and number of each
-- total, …}.
-- KEYS: number, totals
-- include: _prelude
-- include: _ready
-- include: _due
-- include: _age
if overdue() then return {2} end
local ready = length()
local oldest = ready > 0 and oldest_mark(READY, EXPIRING, TIMES, now_ms())
return {
  0, ready, call('ZCARD', LEASED), call('ZCARD', DELAYED), call('ZCARD', DEAD), started() and 1 or 0,
  broadcasts() and 1 or 2, oldest and now_ms() - tonumber(oldest) or -1, tonumber(call('GET', NUMBER) or 0),
  unpack(call('HGETALL', TOTALS)),
}
