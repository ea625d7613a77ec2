-- Drops dead letters that a queue in another partition has taken, unless they were redriven and died again since.
-- ARGV: queue, clock, 1 if a user asked for it or 0, then key, score in DEAD, …
-- Returns the number of dead letters that remain to be moved.
-- allow-oom
-- include: _prelude
-- include: _forget
-- include: _reschedule
-- include: _letters
for i = 4, #ARGV, 2 do
  local key = ARGV[i]
  if call('ZSCORE', DEAD, key) == ARGV[i + 1] then
    call('ZREM', DEAD, key)
    forget({key})
  end
end
reschedule()
return count_to_move(ARGV[3] == '1')
