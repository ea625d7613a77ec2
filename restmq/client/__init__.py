"""A client of RestMQ's HTTP API: ``Client`` for programs that wait, ``DeferredClient`` for those on Twisted.

    from restmq.client import Client

    with Client("http://127.0.0.1:8888") as client:
        client.publish("jobs", "dig")
        message = client.lease("jobs", 60, wait_seconds=10)
        if message is not None:
            print(message.text)
            client.ack(message)

What the server refuses is raised as an error of ``restmq.errors`` or of ``restmq.client.errors``; all are
RestMQErrors. DeferredClient is in ``restmq.client.deferred`` and has the same methods.
"""

from restmq.client.blocking import Client
from restmq.client.errors import BadAnswer, Busy, Refused, Stopped, Unreachable
from restmq.client.exchange import Call, Message
from restmq.client.server import Server

__all__ = ["BadAnswer", "Busy", "Call", "Client", "Message", "Refused", "Server", "Stopped", "Unreachable"]
