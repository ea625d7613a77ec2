-- include: _setting
-- Queues that end. A queue with the setting `expires`, or without it the server's --queue-expires, is removed after this
-- time without messages, consumers and waiters, in which nothing was asked of it.
--
-- 1. IDLE exists while a queue is watched: the time in ms of its next check, a blank, and what the last check saw. The
--    queue is in DUE at this time at the latest (_reschedule.lua), and promote.lua checks it.
-- 2. A check sees the queue's counters, or that it is in use. If it sees the same counters as the last check, it removes
--    the queue; otherwise the next check is due after the whole time. So a queue ends between one and two times this time
--    after its last use.
-- 3. Adding and taking change the counters. What is asked without an effect on them (a take that finds nothing, a new
--    consumer) sets IDLE to 0, so that the next check sees a difference. A queue that is not in DUE is not watched, so
--    most scripts know at no cost that they need not do this.
-- A maintainer must keep: whatever takes a watched queue off DUE calls reschedule().
local function idle_seconds(default_seconds)
  local own = setting('expires')
  return own > 0 and own or tonumber(default_seconds)
end
