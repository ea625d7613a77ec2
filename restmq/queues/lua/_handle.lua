-- include: _lease
-- include: _record
-- state_of(key, receipt, count, last): the state of a message for a receipt handle of SQS: 'leased' (perhaps overdue),
-- 'returned' (ready or delayed), 'gone', or 'old': the handle is not that of the last delivery, where that counts.
-- As with SQS, each handle of a message stays good until the message is deleted.
local function state_of(key)
  if call('EXISTS', key) == 0 or call('ZSCORE', DEAD, key) then return 'gone' end
  return call('ZSCORE', LEASED, key) and 'leased' or 'returned'
end
