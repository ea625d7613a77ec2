-- include: _summary
local totals = call('HMGET', TOTALS, 'before', 'out', 'leased', 'acked', 'redelivered', 'expired', 'dead')
add((call('GET', NUMBER) or 0) - (totals[1] or 0))
for j = 2, #totals do add(totals[j]) end
add(ready)
for _, set in ipairs({LEASED, DELAYED, DEAD}) do add(has_any and call('ZCARD', set) or 0) end
add(has_any and call('GET', STATUS) == '0' and 0 or 1)
local oldest_ms = ready > 0 and oldest_of(first, DELIVERIES, READY, has_any and EXPIRING, TIMES)
add(oldest_ms and math.max(0, now_ms - oldest_ms) or -1)
