"""Nodes that answer what real ones rarely do: they name others without end, name strangers, or are never ready."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import hiredis
import pytest
from twisted.internet import defer, reactor

from restmq.core import RedisOperations
from restmq.errors import StoreUnavailable
from restmq.store.cluster.store import make_store
from restmq.store.rights import CHECK
from restmq.store.settings import StoreSettings
from tests.integration.conftest import Run

QUEUE = "test"


class Node:
    """Speaks enough of the protocol to be taken for a node that has all slots.

    Attributes:
        said: the first words of all commands.
        answer: the answer to each script, as on the wire.
    """

    def __init__(self) -> None:
        self.said: list[str] = []
        self.answer: Callable[[int], str] = lambda _: ":0\r\n"
        self.scripts_run = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        reader = hiredis.Reader(encoding="utf-8", errors="replace")
        with connection, contextlib.suppress(OSError):
            while received := connection.recv(65536):
                reader.feed(received)
                while (words := reader.gets()) is not False:
                    self.said.append(words[0])
                    connection.sendall(self._reply(words).encode())

    def _reply(self, words: list[str]) -> str:
        name = " ".join(words[:2]).upper() if words[0] in ("CLUSTER", "COMMAND") else words[0]
        fixed = {
            "CLUSTER SLOTS": f"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{self.port}\r\n",
            "CLUSTER NODES": "$13\r\nno such words\r\n",
            "ROLE": "*1\r\n$6\r\nmaster\r\n",
            "INFO": "$19\r\ncluster_enabled:1\r\n\r\n",
            "COMMAND INFO": "*1\r\n*1\r\n$11\r\npexpiretime\r\n",
            "EXISTS": ":0\r\n",
            "GET": "$6\r\n1 1024\r\n",
            "CONFIG": "*0\r\n",
        }
        if name in fixed:
            return fixed[name]
        if name == "EVALSHA" and words[1] == CHECK.sha.decode():
            return "*2\r\n*0\r\n*0\r\n"
        if name == "EVALSHA":
            self.scripts_run += 1
            return self.answer(self.scripts_run)
        return "+OK\r\n"

    def stop(self) -> None:
        self._listener.close()


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.stop()


@pytest.fixture
def core(run: Run, node: Node) -> Iterator[RedisOperations]:
    settings = StoreSettings(cluster=(("127.0.0.1", node.port),), password="secret", call_timeout_seconds=1.0)
    store = make_store(settings, reactor)

    async def start() -> None:
        store.startService()
        await store.first_connected

    async def stop() -> None:
        await store.stopService()

    run(start)
    yield RedisOperations(store)
    run(stop)


def test_an_address_that_the_cluster_does_not_name_is_never_connected_to(
    run: Run, node: Node, core: RedisOperations
) -> None:
    stranger = Node()
    node.answer = lambda _: f"-MOVED 1 127.0.0.1:{stranger.port}\r\n"
    with pytest.raises(StoreUnavailable, match="is being moved"):
        run(core.queue_len, QUEUE)
    node.answer = lambda _: f"-ASK 1 127.0.0.1:{stranger.port}\r\n"
    with pytest.raises(StoreUnavailable, match="is being moved"):
        run(core.queue_len, QUEUE)
    assert stranger.said == []
    stranger.stop()


def test_a_node_that_names_itself_without_end_is_asked_a_bounded_number_of_times(
    run: Run, node: Node, core: RedisOperations
) -> None:
    node.answer = lambda _: f"-MOVED 1 127.0.0.1:{node.port}\r\n"
    with pytest.raises(StoreUnavailable, match="is being moved"):
        run(core.queue_len, QUEUE)
    assert 3 < node.scripts_run < 100


@pytest.mark.parametrize(
    "problem",
    [
        "TRYAGAIN not all keys",
        "CLUSTERDOWN the slot is not served",
        "LOADING data",
        "ASK 1 127.0.0.1:nonsense",
        "MOVED",
    ],
)
def test_a_call_that_a_node_did_not_run_is_made_again(
    run: Run, node: Node, core: RedisOperations, problem: str
) -> None:
    node.answer = lambda number: f"-{problem}\r\n" if number < 4 else ":7\r\n"
    assert run(core.queue_len, QUEUE) == 7
    assert node.scripts_run == 4


def test_a_cluster_that_is_down_is_named(run: Run, node: Node, core: RedisOperations) -> None:
    node.answer = lambda _: "-CLUSTERDOWN Hash slot not served\r\n"
    with pytest.raises(StoreUnavailable, match=r"CLUSTERDOWN.*Nothing was done"):
        run(core.queue_len, QUEUE)


def test_calls_that_wait_are_bounded(run: Run, node: Node, core: RedisOperations) -> None:
    node.answer = lambda _: "-TRYAGAIN not all keys\r\n"
    core.store.settings = StoreSettings(call_timeout_seconds=1.0, calls_in_flight_max=2)

    async def many() -> list[str]:
        calls = [defer.ensureDeferred(core.queue_len(QUEUE)) for _ in range(5)]
        results = await defer.DeferredList(calls, consumeErrors=True)
        return [str(result.value) for _, result in results]  # type: ignore[attr-defined]

    assert ["too many" in problem for problem in run(many)].count(True) == 3
