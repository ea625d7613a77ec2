-- A daemon has taps on the queue: each message that is put into it is copied to the channel of the taps (_tap.lua) for
-- some time. Publishes a marker there with the number of the last message: a daemon that knows a lower one has missed
-- messages. The names of channel and flow control are those of the taps (QueueKeys.of_taps).
-- ARGV: queue, clock, the time in ms.
-- allow-oom
-- include: _prelude
call('SET', TAPPED, 1, 'PX', ARGV[3])
call(PUBLISH, CHANNEL, 'at ' .. (call('GET', NUMBER) or call('GET', LAST_NUMBER) or '0'))
