-- What is known first of each of several queues, for the body of a loop over QUEUE: `has_any`, whether it has any of the
-- keys that most queues lack, by one call; `ready`, the number of its ready messages; `first`, the key of the first one, if
-- it is a FIFO queue with such messages, which has them in another key (see fifo/_groups).
local has_any = call('EXISTS', EXPIRING, STATUS, POLICY, LEASED, DELAYED, DEAD) > 0
local ready, first = call('LLEN', READY), nil
if string.sub(QUEUE, -#FIFO) == FIFO then
  first = call('ZRANGE', ORDERED, 0, 0)[1]
  ready = ready + call('ZCARD', ORDERED)
end
if ready > 0 and has_any then ready = math.max(0, ready - call('ZCOUNT', EXPIRING, '-inf', now)) end
