"""Access to Redis: a call answers or raises within its time limit; nothing is queued while Redis is unreachable.

``pool.Store`` makes the calls, and ``subscriber.Subscriber`` listens to channels. Their connections are made and
examined by ``connection_pool`` and ``handshake``. ``batching.Batcher`` joins like calls that arrive together.
Only ``connection`` imports txredisapi. ``keys`` has the names of all keys and channels, ``rights`` the commands in use.
``cluster`` has the store of a Redis Cluster.
"""
