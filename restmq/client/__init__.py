"""A client for RestMQ's HTTP API: ``Client`` blocks, ``DeferredClient`` is for Twisted.

    from restmq.client import Client

    with Client("http://127.0.0.1:8888") as client:
        client.publish("jobs", "dig")
        message = client.lease("jobs", 60, wait_seconds=10)
        if message is not None:
            print(message.text)
            client.ack(message)

Every error is a subclass of ``restmq.errors.RestMQError``, defined in ``restmq.errors`` or ``restmq.client.errors``.
DeferredClient is in ``restmq.client.deferred``, so that importing this package does not load Twisted. It has the same
methods.
"""

from restmq.client.blocking import Client
from restmq.client.errors import BadAnswer, Busy, Refused, Stopped, Unreachable
from restmq.client.exchange import Call, Message
from restmq.client.server import Server

__all__ = ["BadAnswer", "Busy", "Call", "Client", "Message", "Refused", "Server", "Stopped", "Unreachable"]
