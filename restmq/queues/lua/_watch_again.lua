-- include: _watch
if not (call('EXISTS', IDLE) == 1 and call('ZSCORE', DUE, QUEUE)) then watch(ARGV[2]) end
