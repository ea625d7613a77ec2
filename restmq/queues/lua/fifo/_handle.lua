-- include plain: _handle
-- As with SQS, a handle is good until the next delivery, also after its lease. Receipts are gone then, so it has the count
-- and the time of its delivery too, which the record keeps.
local state_of_key = state_of

local function state_of(key, receipt, count, last)
  local state, record = state_of_key(key), record_of(key)
  local is_last = record.count == tonumber(count) and record.last == tonumber(last)
  if state == 'leased' then is_last = string.match(call('HGET', RECEIPTS, key) or '', '^%S+') == receipt end
  return (is_last or state == 'gone') and state or 'old'
end
