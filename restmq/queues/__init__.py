"""The operations on queues: one method, one guarantee, one Lua script in ``lua/``; all are atomic.

``restmq.core.RedisOperations`` is their one face. Each raises StoreUnavailable if Redis does not answer in time (then
it is unknown whether the operation ran), StoreRefused if Redis answers with an error, and InvalidInput for an invalid
queue name.
"""
