-- Writes a key that nobody reads. A replica that has it has everything that its primary wrote before it.
-- KEYS: the key.
-- allow-oom
redis.call('SET', KEYS[1], '')
