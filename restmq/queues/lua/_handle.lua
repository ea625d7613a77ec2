-- include: _lease
-- include: _record
-- A receipt handle of SQS stays good for the message until the next delivery, also after its lease. So it has the count
-- and the time of its delivery too, which the record keeps.
-- Returns 'leased' (the handle is that of the present lease, which may be overdue), 'returned' (the lease is over, and no
-- other delivery came since), 'old', or 'gone'.
local function state_of(key, receipt, count, last)
  if call('EXISTS', key) == 0 or call('ZSCORE', DEAD, key) then return 'gone' end
  local record = record_of(key)
  if call('ZSCORE', LEASED, key) then
    return string.match(call('HGET', RECEIPTS, key) or '', '^%S+') == receipt and 'leased' or 'old'
  end
  return record.count == tonumber(count) and record.last == tonumber(last) and 'returned' or 'old'
end
