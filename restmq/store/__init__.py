"""The way to Redis: a call answers, or raises within its time limit; nothing queues for a Redis that is away.

``pool.Store`` has the calls, ``subscriber.Subscriber`` the channels. ``batching.Batcher`` joins calls of one reactor
turn. Only ``connection`` imports txredisapi; ``keys`` has every key and channel name.
"""
