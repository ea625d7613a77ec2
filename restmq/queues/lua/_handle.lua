-- include: _lease
-- include: _record
-- state_of(key, receipt): the state of a message for a receipt handle of SQS: 'leased' (perhaps overdue), 'returned'
-- (ready or delayed), 'gone', or 'old' (only in a FIFO queue: the lease of this handle has ended).
-- As with SQS, each handle of a standard queue is valid until its message is deleted. A message that was never delivered
-- has none.
local function state_of(key)
  if call('ZSCORE', LEASED, key) then return 'leased' end
  local is_dead = call('ZSCORE', DEAD, key)
  return not is_dead and call('EXISTS', key) == 1 and record_of(key).count > 0 and 'returned' or 'gone'
end
