-- Returns messages that were taken for clients that have disconnected to their places in the queue (see _order). If the
-- queue was removed meanwhile, it exists again.
-- ARGV: queue, clock, then key, value, expiry in ms since 1970 or 0, record of deliveries or '', …
-- allow-oom
-- include: _prelude
-- include: _expiry
-- include: _order
-- include: _begin
-- include: _wake
local is_removed = call('SADD', QUEUE_SET, QUEUE) == 1
if is_removed then begin(NUMBER, LAST_NUMBER, TOTALS) end
local keys, orders = {}, {}
for i = 3, #ARGV, 4 do
  local key, value, expires_ms, record = unpack(ARGV, i, i + 3)
  if not is_removed then call('HINCRBY', TOTALS, 'out', -1) end
  if tonumber(expires_ms) > 0 then
    call('SET', key, value, 'PXAT', expires_ms)
  else
    call('SET', key, value)
  end
  if becomes_ready(key) then
    if record ~= '' then call('HSET', DELIVERIES, key, record) end
    keys[#keys + 1], orders[key] = key, order_of(key, record ~= '' and cjson.decode(record) or {})
  else
    call('HINCRBY', TOTALS, 'expired', 1)
  end
end
sort_by_order(keys, orders)
come_back(keys, orders)
wake()
