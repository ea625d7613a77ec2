-- Keeps the samples of the dashboard's charts, also while Redis is full, because the charts show an operator why it is.
-- KEYS: the key (see restmq/store/keys.py).
-- ARGV: the samples, seconds until they expire.
-- allow-oom
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
