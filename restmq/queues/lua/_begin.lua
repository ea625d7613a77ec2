-- Called when a queue has come into QUEUE_SET, with its first message. A queue that was removed leaves its last number in
-- LAST_NUMBER for a day, so that no number repeats. TOTALS.before keeps that number, because the queue counts its messages
-- anew. The keys of another queue may be given.
local function begin(number, last_number, totals)
  local last = call('GET', last_number)
  if last and call('SET', number, last, 'NX') then call('HSET', totals, 'before', last) end
end
