-- include plain: _handle
-- As with SQS, a handle of a FIFO queue is valid until its lease ends.
local state_of_key = state_of

local function state_of(key, receipt)
  if state_of_key(key) == 'gone' then return 'gone' end
  local end_ms = call('ZSCORE', LEASED, key)
  local is_held = end_ms and tonumber(end_ms) > now_ms()
  return is_held and string.match(call('HGET', RECEIPTS, key) or '', '^%S+') == receipt and 'leased' or 'old'
end
