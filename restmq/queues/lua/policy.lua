-- Sets the queue's policy, and tells every daemon that has consumers of it.
-- ARGV: queue, clock, 1 for broadcast or 2 for roundrobin, seconds as in settings.
-- allow-oom
-- include: _prelude
-- include: _wake
-- include: _watch
call('SET', POLICY, ARGV[3])
call('DEL', TURNS)
call(PUBLISH, CHANNEL, 'changed')
wake()
watch(ARGV[4])
