"""No reference cycles: the garbage collector runs so rarely that a cycle would hold large messages for hours."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from restmq.auth.guard import LISTEN_COMET, Credentials
from restmq.delivery.consumer import CloseReason
from restmq.delivery.several import SeveralQueues
from restmq.delivery.transport_consumer import TransportConsumer
from restmq.errors import InvalidInput
from restmq.handlers.several import _events
from restmq.handlers.streams import EVENTS
from restmq.handlers.xmlrpc import _Call
from restmq.store.batching import SingleFlight
from restmq.store.connection import Connection
from tests.in_memory import App, Client, post
from tests.unit.fanout_scene import Scene
from tests.unit.test_websocket import Conversation, sent


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """Fails if the test leaves an object of ours, or of the Redis client, that only the collector can free."""
    yield
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    ours = [each for each in gc.garbage if type(each).__module__.startswith(("restmq", "txredisapi"))]
    gc.set_debug(0)
    gc.garbage.clear()
    assert ours == []


class Owner:
    """The pool of a connection."""

    def seconds(self) -> float:
        return 0.0

    def connection_made(self, connection: Any) -> None: ...
    def connection_lost(self, connection: Any, why: Any) -> None: ...
    def refused(self, connection: Any, error: Exception) -> Exception:
        return error


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize("reply", [b"-OOM no memory\r\n", b"+OK\r\n"])
def test_a_call_that_redis_refuses(reply: bytes) -> None:
    connection = Connection(Owner())
    connection.makeConnection(StringTransport())
    caught: list[str] = []

    async def caller() -> None:
        try:
            await connection.call(b"SET", b"key", b"a large value")
        except Exception as error:
            caught.append(str(error))

    defer.ensureDeferred(caller())
    connection.dataReceived(reply)
    assert caught == (["OOM no memory"] if reply.startswith(b"-") else [])
    del connection.transport


@pytest.mark.usefixtures("no_garbage")
def test_an_xml_call() -> None:
    call = _Call()
    for _ in call.read(b"<methodCall><methodName>get</methodName><params/></methodCall>"):
        pass
    assert call.method == "get"
    call = _Call()
    with contextlib.suppress(InvalidInput):
        for _ in call.read(b"<methodCall>" + b"x" * 100_000):
            pass


@pytest.mark.usefixtures("no_garbage")
def test_a_body_that_cannot_be_decoded() -> None:
    client = Client(App()).send(post("/", b"rubbish", "Content-Encoding: gzip\r\n"))
    assert client.got == b"[400]"
    client.leave()
    client.connection.transport = None


@pytest.mark.usefixtures("no_garbage")
def test_a_call_that_runs_one_at_a_time() -> None:
    class Caller:
        def __init__(self) -> None:
            self.calls = 0
            self.flight = SingleFlight(self.call, self.fail)

        async def call(self) -> None:
            self.calls += 1

        def fail(self, _: Any) -> None: ...

    caller = Caller()
    caller.flight.request()
    assert caller.calls == 1


def test_the_last_consumer_of_a_queue_that_leaves() -> None:
    scene = Scene()
    (consumer,) = scene.consumers(1)
    scene.publish(1)
    scene.clock.advance(0)
    assert consumer.writes
    live = weakref.ref(scene.fanout._live["q"])
    scene.fanout.leave("q", consumer)
    assert live() is None


class Listener(TransportConsumer):
    access = LISTEN_COMET

    def __init__(self) -> None:
        self.transport = StringTransport()

    @property
    def outlet(self) -> Any:
        return self.transport

    def close(self, reason: CloseReason) -> None: ...


def test_a_consumer_of_several_queues_that_leaves() -> None:
    scene = Scene()
    several = SeveralQueues(scene.fanout, ["q", "r"], None, _events)
    listener = Listener()
    listener.attach(fanout=several, queue="q", wire_format=EVENTS, credentials=Credentials("192.0.2.1"))
    several.connect("q", listener, None)
    scene.publish(1)
    scene.clock.advance(0)
    assert listener.transport.value().startswith(b"event: q\nid: 1,")
    transport = weakref.ref(listener.transport)
    listener.detach()
    del several, listener
    assert transport() is None


def test_a_websocket_that_is_closed() -> None:
    conversation = Conversation()
    conversation.say(sent(b"an echo"))
    conversation.transport.unregisterProducer()
    conversation.socket.connectionLost(Failure(ConnectionDone()))
    socket = weakref.ref(conversation.socket)
    del conversation.socket, conversation.transport
    assert socket() is None
