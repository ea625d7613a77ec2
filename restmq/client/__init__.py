"""A client for RestMQ's HTTP API: ``Client`` blocks, ``AsyncClient`` is for asyncio, ``DeferredClient`` for Twisted.

    from restmq.client import Client

    with Client("http://127.0.0.1:8888") as client:
        client.publish("jobs", "dig")
        with client.leased("jobs", wait_seconds=10) as message:
            if message is not None:
                print(message.text)

Every error is a subclass of ``restmq.errors.RestMQError``, defined in ``restmq.errors`` or ``restmq.client.errors``.
All clients have the same methods. DeferredClient is in ``restmq.client.deferred``, so that importing this package does
not load Twisted. AsyncClient needs httpx, and is loaded when it is used.
"""

from typing import TYPE_CHECKING, Any

from restmq.client.blocking import Client
from restmq.client.errors import BadAnswer, Busy, Refused, Stopped, Unreachable
from restmq.client.exchange import Call, Message
from restmq.client.server import Server

if TYPE_CHECKING:
    from restmq.client.asynchronous import AsyncClient as AsyncClient

__all__ = ["BadAnswer", "Busy", "Call", "Client", "Message", "Refused", "Server", "Stopped", "Unreachable"]


def __getattr__(name: str) -> Any:
    if name != "AsyncClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from restmq.client.asynchronous import AsyncClient
    except ModuleNotFoundError as missing:
        raise ImportError(f"AsyncClient needs {missing.name}: pip install 'restmq[asyncio]'") from None
    return AsyncClient
