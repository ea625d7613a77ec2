-- Ends the script if messages were added with this idempotency key before: the answer has the keys of the same messages, or
-- says that they were others. `keys` begins the answer.
if options.fingerprint then
  local seen, first, seen_count = string.match(call('GET', KEYS[#KEYS]) or '', '^(%S+) (%d+) (%d+)$')
  if seen and seen ~= options.fingerprint then return {'conflict'} end
  if seen then
    for number = tonumber(first), first + seen_count - 1 do keys[#keys + 1] = string.format('%s:%.0f', QUEUE, number) end
    return keys
  end
end
