-- Ends the script if messages were added with this idempotency key before. The answer has the keys of these messages, or
-- says that the messages differ. `keys` begins the answer.
if options.fingerprint then
  local seen, first, seen_count = string.match(call('GET', KEYS[#KEYS]) or '', '^(%S+) (%d+) (%d+)$')
  if seen and seen ~= options.fingerprint then return {'conflict'} end
  if seen then
    for number = tonumber(first), first + seen_count - 1 do keys[#keys + 1] = string.format('%s:%.0f', QUEUE, number) end
    return keys
  end
end
