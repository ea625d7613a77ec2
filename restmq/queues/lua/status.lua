-- Starts or stops the queue, and tells every daemon that has consumers of it. While it is stopped they get nothing.
-- ARGV: queue, clock, 1 to start or 0 to stop, seconds as in settings.
-- allow-oom
-- include: _prelude
-- include: _wake
-- include: _watch
call('SET', STATUS, ARGV[3])
call(PUBLISH, CHANNEL, 'changed')
wake()
watch(ARGV[4])
