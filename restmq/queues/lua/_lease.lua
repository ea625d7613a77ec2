-- A leased message keeps its value. LEASED has its deadline. RECEIPTS has its receipt and, after a blank, the channel
-- of the daemon that holds it for a live consumer. DELIVERIES has its record (see _record).

-- For keys in ARGV from `first` to `last`, each followed by its receipt: the keys, for each the end of the lease in ms if
-- it is in force under this receipt, or false, and what RECEIPTS has.
local function leases(first, last)
  local keys, ends = {}, {}
  for i = first, last, 2 do keys[#keys + 1] = ARGV[i] end
  if #keys == 0 then return keys, ends, {} end
  local receipts, due_ms = call('HMGET', RECEIPTS, unpack(keys)), call('ZMSCORE', LEASED, unpack(keys))
  for i = 1, #keys do
    local receipt, given = receipts[i], ARGV[first + 2 * i - 1]
    local is_known = receipt and (receipt == given or string.match(receipt, '^(%S+) ') == given)
    local end_ms = is_known and tonumber(due_ms[i] or 0)
    ends[i] = end_ms and end_ms > now_ms() and end_ms
  end
  return keys, ends, receipts
end

-- Ends leases, and tells the daemons that held the messages for consumers. Returns what RECEIPTS has for the keys, which a
-- caller may know already.
local function end_leases(keys, receipts)
  receipts = receipts or call('HMGET', RECEIPTS, unpack(keys))
  call('ZREM', LEASED, unpack(keys))
  call('HDEL', RECEIPTS, unpack(keys))
  for i, key in ipairs(keys) do
    if receipts[i] and string.find(receipts[i], ' ', 1, true) then
      local receipt, holder = string.match(receipts[i], '^(%S*) (.*)$')
      call(PUBLISH, holder, QUEUE .. '\n' .. key .. ' ' .. receipt)
    end
  end
  return receipts
end
