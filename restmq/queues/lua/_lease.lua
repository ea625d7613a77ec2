-- A leased message keeps its value. LEASED has its deadline. RECEIPTS has its receipt and, after a blank, the channel
-- of the daemon that holds it for a live consumer. DELIVERIES has its record (see _record).

-- Whether this receipt is that of the message's lease, and the lease is in force.
local function holds(key, receipt)
  local found = call('HGET', RECEIPTS, key)
  if not found or string.match(found, '^%S+') ~= receipt then return false end
  local due_ms = call('ZSCORE', LEASED, key)
  return due_ms and tonumber(due_ms) > now_ms()
end

-- Ends the lease, and tells the daemon that held the message for a consumer. Returns the receipt.
local function end_lease(key)
  local receipt, holder = string.match(call('HGET', RECEIPTS, key) or '', '^(%S*) ?(.*)$')
  call('ZREM', LEASED, key)
  call('HDEL', RECEIPTS, key)
  if holder ~= '' then call(PUBLISH, holder, QUEUE .. '\n' .. key .. ' ' .. receipt) end
  return receipt
end
