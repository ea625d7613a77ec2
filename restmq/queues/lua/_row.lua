-- include: _summary
add(ready)
add(has_any and call('GET', STATUS) == '0' and 0 or 1)
add(has_any and call('GET', POLICY) == '2' and 2 or 1)
if ARGV[1] == '1' then
  for _, set in ipairs({LEASED, DELAYED, DEAD}) do add(has_any and call('ZCARD', set) or 0) end
  local before, out = unpack(call('HMGET', TOTALS, 'before', 'out'))
  add((call('GET', NUMBER) or 0) - (before or 0))
  add(tonumber(out or 0))
  add(ready > 0 and oldest_of(first, DELIVERIES, READY, has_any and EXPIRING, TIMES) or false)
end
