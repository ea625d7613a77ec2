"""The clients (blocking, asyncio, Twisted) against real servers, including ones that fail, reject and cut off."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from twisted.internet import defer, reactor

from restmq.client import AsyncClient, BadAnswer, Busy, Client, Message, Refused, Server, Stopped, Unreachable
from restmq.client.deferred import DeferredClient
from restmq.errors import Conflict, InvalidInput, LeaseGone, NotAllowed, NotAuthenticated, NotFound, RestMQError
from tests.integration.conftest import Run
from tests.servers import ROOT, Daemon, Redis, free_port, listeners, wait_until

BINARY = bytes(range(256)) * 3
TEXT = "ü 😀 \r\n\n\u2028 007"


class InThread:
    """A DeferredClient whose methods block, so that every test can run with all clients."""

    def __init__(self, run: Run, server: Server | str, **options: Any) -> None:
        self._run = run

        async def make() -> DeferredClient:
            return DeferredClient(reactor, server, **options)

        self.client: DeferredClient = run(make)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            async def call() -> Any:
                return await getattr(self.client, name)(*args, **kwargs)

            return self._run(call)

        return method

    def consume(self, *args: Any, **kwargs: Any) -> Iterator[Message]:
        return self._iterate(self.client.consume(*args, **kwargs))

    def listen(self, *args: Any, **kwargs: Any) -> Iterator[Message]:
        return self._iterate(self.client.listen(*args, **kwargs))

    def tap(self, *args: Any, **kwargs: Any) -> Iterator[Message]:
        return self._iterate(self.client.tap(*args, **kwargs))

    def _iterate(self, messages: Any) -> Iterator[Message]:
        async def following() -> Message:
            found: Message = await anext(messages)
            return found

        try:
            while True:
                yield self._run(following)
        finally:
            self._run(messages.aclose)

    @contextlib.contextmanager
    def leased(self, *args: Any, **kwargs: Any) -> Iterator[Message | None]:
        context = self.client.leased(*args, **kwargs)
        message = self._run(context.__aenter__)
        try:
            yield message
        except BaseException as failure:
            error = failure
            self._run(lambda: context.__aexit__(type(error), error, error.__traceback__))
            raise
        self._run(lambda: context.__aexit__(None, None, None))


class InLoop(InThread):
    """An AsyncClient whose methods block."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: Server | str, **options: Any) -> None:
        self._run = lambda call: asyncio.run_coroutine_threadsafe(call(), loop).result(120)

        async def make() -> AsyncClient:
            return AsyncClient(server, **options)

        self.client = self._run(make)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever, daemon=True)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


Make = Callable[..., Any]


@pytest.fixture(params=["blocking", "asyncio", "deferred"])
def make(request: pytest.FixtureRequest, run: Run, loop: asyncio.AbstractEventLoop) -> Iterator[Make]:
    """Makes clients, all of one kind."""
    made: list[Any] = []

    def make_one(server: Server | str, **options: Any) -> Any:
        if request.param == "blocking":
            made.append(Client(server, **options))
        elif request.param == "asyncio":
            made.append(InLoop(loop, server, **options))
        else:
            made.append(InThread(run, server, **options))
        return made[-1]

    yield make_one
    for client in made:
        client.close()


@pytest.fixture
def client(make: Make, daemon: Daemon) -> Any:
    return make(daemon.url)


class Proxy:
    """A TCP proxy that counts connections and cuts off as many responses as a test asks for."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.answers_to_cut = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                server = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._forward, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, True), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers and self.answers_to_cut:
                    self.answers_to_cut -= 1
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def proxy(daemon: Daemon) -> Iterator[Proxy]:
    made = Proxy(daemon.port)
    yield made
    made.close()


def answer_with(answer: bytes) -> tuple[str, socket.socket]:
    """A server that answers every request with these bytes and disconnects."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", listener


def collecting(into: list[RestMQError]) -> Callable[[RestMQError, float], None]:
    return lambda error, _seconds: into.append(error)


# Messages


@pytest.mark.parametrize("value", [BINARY, TEXT, b"", b"\xff", b"value=x&y", b'{"a": 1}', b"x" * 1_000_000])
def test_a_taken_message_has_the_published_bytes(client: Any, queue: str, value: bytes | str) -> None:
    key = client.publish(queue, value)
    exact = value.encode() if isinstance(value, str) else value
    assert client.take(queue) == Message(key, exact)
    assert client.take(queue) is None


def test_a_batch_keeps_its_order(client: Any, queue: str) -> None:
    values = [TEXT, b"", "b\n", b"c", '{"a": 1}']
    keys = client.publish_many(queue, values)
    assert keys == [f"{queue}:{n}" for n in range(1, 6)]
    found = client.take_many(queue, 10)
    assert [message.value for message in found] == [TEXT.encode(), b"", b"b\n", b"c", b'{"a": 1}']
    assert client.take_many(queue, 10) == []


def test_delay_ttl_and_idempotency_key_reach_the_server(client: Any, queue: str) -> None:
    delayed = client.publish(queue, "later", delay_seconds=3600)
    assert client.find(delayed).more["state"] == "delayed"
    client.publish(queue, "gone", ttl_seconds=0.05)
    wait_until(lambda: client.stats(queue)["ready"] == 0)
    assert client.publish(queue, "a", idempotency_key="k") == client.publish(queue, "a", idempotency_key="k")
    with pytest.raises(Conflict):
        client.publish(queue, "b", idempotency_key="k")


def test_a_take_waits_for_a_message(client: Any, make: Make, daemon: Daemon, queue: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(make(daemon.url).take, queue, wait_seconds=60)
        wait_until(lambda: client.stats(queue)["waiters"] == 1)
        key = client.publish(queue, "now")
        assert taken.result(20) == Message(key, b"now")


def test_a_message_is_taken_or_leased_from_the_first_queue_that_has_one(client: Any, queue: str) -> None:
    high, low = f"{queue}/high", f"{queue}&low"
    keys = [client.publish(name, BINARY) for name in (low, high)]
    leased = client.take_first([high, low], lease_seconds=0)
    assert (leased.key, leased.value, leased.more["queue"]) == (keys[1], BINARY, high)
    taken = client.take_first([high, low], wait_seconds=5)
    assert (taken.key, taken.receipt, taken.more["queue"]) == (keys[0], "", low)
    assert client.take_first([high, low]) is None
    client.ack(leased)
    assert client.find(keys[1]) is None


def test_leases_are_acked_extended_and_nacked(client: Any, queue: str) -> None:
    client.configure(queue, max_deliveries=2)
    key = client.publish(queue, BINARY)
    first = client.lease(queue, 1)
    assert (first.key, first.value, first.count) == (key, BINARY, 1)
    client.extend(first, 3600)
    client.nack(first)
    with pytest.raises(LeaseGone, match="lease"):
        client.extend(first, 5)
    (second,) = client.lease_many(queue, 5)
    assert second.count == 2
    client.ack(second)
    with pytest.raises(LeaseGone):
        client.ack(second)
    assert client.find(key) is None


def test_a_failed_message_returns_later_with_its_reason(client: Any, queue: str) -> None:
    key = client.publish(queue, "work")
    client.nack(client.lease(queue), delay_seconds=1000, reason="ü" * 1000)
    waiting = client.find(key)
    assert (waiting.more["state"], waiting.more["reason"]) == ("delayed", "ü" * 512)
    client.configure(queue, retry_delay=1000, max_deliveries=1)
    client.publish(queue, "more")
    client.nack(client.lease(queue), reason="no")
    assert client.redrive(queue, to=f"{queue}-2") == 1
    assert client.take(f"{queue}-2").more["dead_letter"]["reason"] == "no"


def test_several_messages_are_acked_in_one_request(client: Any, queue: str) -> None:
    client.publish_many(queue, ["a", "b", "c"])
    leased = client.lease_many(queue, 3)
    client.nack(leased[1], delay_seconds=0)
    assert client.ack_many(leased) == [True, False, True]
    assert client.stats(queue)["ready"] == 1


def test_a_queue_with_any_name_is_inspected_and_changed(client: Any, queue: str) -> None:
    name = f"{queue} ü/😀?%&=+#"
    keys = [client.publish(name, value) for value in ("a", "b", "c")]
    assert name in client.queues()
    assert client.overview()[name]["len"] == 3
    client.configure(name, policy="roundrobin", max_deliveries=1, lease=5)
    assert client.settings(name) == {"queue": name, "value": "roundrobin", "max_deliveries": 1, "lease": 5}
    client.pause(name)
    assert client.stats(name)["status"] == 0
    client.resume(name)
    assert client.stats(name)["status"] == 1
    for _ in keys:
        client.nack(client.lease(name))
    count, letters = client.dead(name, first=1, count=1)
    assert (count, [letter.key for letter in letters]) == (3, keys[1:2])
    assert client.redrive(name, keys[0]) == 1
    assert client.drop_dead(name, keys[1]) == 1
    with pytest.raises(NotFound):
        client.drop_dead(name, keys[1])
    assert client.redrive(name) == 1
    assert (client.delete(name, keys[0]), client.delete(name, keys[0])) == (True, False)
    assert (client.purge(name), client.purge(name)) == (True, False)
    assert (client.purge(name, remove=True), client.purge(name, remove=True)) == (True, False)
    assert name not in client.queues()


# Errors


def test_server_errors_are_raised_with_the_servers_text(client: Any, queue: str) -> None:
    with pytest.raises(InvalidInput, match="count"):
        client.take_many(queue, 1001)
    with pytest.raises(Refused, match="16777216") as refused:
        client.publish(queue, b"x" * (17 << 20))
    assert refused.value.status == 413
    with pytest.raises(InvalidInput, match="reserved"):
        client.publish("AUTHKEY:x", "a")


def test_denied_access_is_raised(make: Make, private_folder: Path, redis: Redis, queue: str) -> None:
    (private_folder / "acl.conf").write_text("[rest:consumer]\nusername = ann\npassword = böb\n")
    daemon = Daemon(private_folder, redis=redis)
    redis.command("SET", f"AUTHKEY:t-{queue}", f'{{"queues": ["{queue}"], "privs": ["read"]}}')
    try:
        assert make(Server(daemon.url, username="ann", password="böb")).stats(queue)["ready"] == 0
        assert make(Server(daemon.url, token=f"t-{queue}")).take(queue) is None
        for wrong in (Server(daemon.url), Server(daemon.url, token="wrong"), Server(daemon.url, "", "ann", "no")):
            with pytest.raises(NotAuthenticated):
                make(wrong).take(queue)
        with pytest.raises(NotAllowed, match="admin"):
            make(Server(daemon.url, token=f"t-{queue}")).purge(queue)
        with pytest.raises(NotAuthenticated):
            next(make(daemon.url).consume(queue))
    finally:
        daemon.stop()


def test_a_wrong_url_is_reported(make: Make, queue: str) -> None:
    with pytest.raises(Unreachable, match="can't be reached") as unreachable:
        make(f"http://127.0.0.1:{free_port()}", retry_seconds=0).take(queue)
    assert not unreachable.value.sent
    for answer, kind in (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", BadAnswer),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /x\r\n\r\n", BadAnswer),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\n<html>", NotFound),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Unreachable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n[{", Unreachable),
        (b"", Unreachable),
    ):
        url, listener = answer_with(answer)
        with pytest.raises(kind):
            make(url, retry_seconds=0).take_many(queue, 5)
        with pytest.raises((kind, BadAnswer)):
            next(make(url, retry_seconds=0).listen(queue))
        listener.close()


def test_a_silent_server_times_out(make: Make, queue: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match="in time") as unreachable:
            make(url, retry_seconds=0, timeout_seconds=0.1).publish(queue, "a")
        assert unreachable.value.sent


# Connections and retries


def test_connections_are_kept_alive(make: Make, proxy: Proxy, queue: str) -> None:
    client = make(proxy.url)
    for n in range(20):
        client.publish(queue, str(n))
    with pytest.raises(InvalidInput):
        client.take_many(queue, 0)
    assert len(client.take_many(queue, 100)) == 20
    assert proxy.connections == 1


def test_an_early_response_keeps_the_connection(make: Make, queue: str) -> None:
    """The server responds after the request's head. It accepts one connection, so both requests must use it."""
    value = b"x" * 50_000_000
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as connection, connection.makefile("rb") as requests:
                for _ in range(2):
                    while requests.readline().strip():
                        pass
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nkey:1")
                    requests.read(len(value))

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        client = make(f"http://127.0.0.1:{listener.getsockname()[1]}", retry_seconds=0, timeout_seconds=20)
        for _ in range(2):
            assert client.publish(queue, value) == "key:1"
        server.join(20)
        assert not server.is_alive()


def test_a_publish_whose_response_was_lost_is_retried_and_queued_once(make: Make, proxy: Proxy, queue: str) -> None:
    retries: list[RestMQError] = []
    client = make(proxy.url, on_retry=collecting(retries))
    proxy.answers_to_cut = 3
    assert client.publish(queue, "once") == f"{queue}:1"
    proxy.answers_to_cut = 1
    assert client.publish_many(queue, ["a", "b"]) == [f"{queue}:2", f"{queue}:3"]
    assert client.stats(queue)["ready"] == 3
    assert len(retries) == 4
    proxy.answers_to_cut = 1
    with pytest.raises(Unreachable) as unreachable:
        client.publish(queue, "perhaps", idempotency_key="")
    assert unreachable.value.sent


def test_a_take_whose_response_was_lost_is_not_retried(make: Make, proxy: Proxy, queue: str) -> None:
    client = make(proxy.url)
    client.publish_many(queue, ["a", "b"])
    proxy.answers_to_cut = 1
    with pytest.raises(Unreachable):
        client.take(queue)
    assert client.take(queue).value == b"b"


def test_publishing_to_a_full_queue_is_retried_until_there_is_space_or_the_time_is_over(
    make: Make, client: Any, daemon: Daemon, queue: str
) -> None:
    client.configure(queue, max_length=1)
    client.publish(queue, "first")
    with pytest.raises(Busy, match="max_length") as busy:
        make(daemon.url, retry_seconds=0).publish(queue, "no room")
    assert busy.value.retry_after_seconds == 1
    retries: list[RestMQError] = []
    patient = make(daemon.url, retry_seconds=60, on_retry=collecting(retries))
    with ThreadPoolExecutor(1) as pool:
        published = pool.submit(patient.publish, queue, "second")
        wait_until(lambda: retries)
        assert client.take(queue).value == b"first"
        published.result(30)
    assert client.take(queue).value == b"second"


def test_a_request_is_retried_while_the_store_is_unavailable(
    make: Make, private_folder: Path, private_redis: Redis
) -> None:
    daemon = Daemon(private_folder, "--redis-timeout", "0.5", redis=private_redis)
    retries: list[RestMQError] = []
    client = make(daemon.url, retry_seconds=60, on_retry=collecting(retries))
    client.publish("q", "before")
    private_redis.kill()
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(client.take, "q")
        wait_until(lambda: retries)
        private_redis.start()
        assert taken.result(60).value == b"before"
    assert isinstance(retries[0], Busy)
    daemon.stop()


def test_a_request_is_retried_while_the_server_restarts(
    make: Make, private_folder: Path, redis: Redis, queue: str
) -> None:
    daemon = Daemon(private_folder, redis=redis)
    retries: list[RestMQError] = []
    client = make(daemon.url, retry_seconds=60, on_retry=collecting(retries))
    client.publish(queue, "before")
    daemon.kill()
    with ThreadPoolExecutor(1) as pool:
        published = pool.submit(client.publish, queue, "after")
        wait_until(lambda: retries)
        daemon.start()
        assert published.result(60) == f"{queue}:2"
    daemon.stop()


# Streams


def test_consume_continues_after_the_server_was_killed(
    make: Make, private_folder: Path, redis: Redis, queue: str
) -> None:
    daemon = Daemon(private_folder, redis=redis)
    client = make(daemon.url, retry_seconds=60)
    messages, leased = client.consume(queue), make(daemon.url, retry_seconds=60).consume(queue, 60, count=5)
    with ThreadPoolExecutor(1) as pool:
        for restart in (False, True):
            waiting = pool.submit(next, messages)
            wait_until(lambda: client.stats(queue)["waiters"] == 1)
            if restart:
                daemon.kill()
                daemon.start()
                wait_until(lambda: client.stats(queue)["waiters"] == 1)
            key = client.publish(queue, "x")
            assert waiting.result(60).key == key
    key = client.publish(queue, "y")
    assert next(leased).key == key
    messages.close()
    leased.close()
    daemon.stop()


def test_listen_misses_nothing_of_a_queue_with_history_when_the_server_is_killed(
    make: Make, private_folder: Path, redis: Redis, http: httpx.Client, queue: str
) -> None:
    http.post(f"/p/{queue}", data={"history": "1000"})
    daemon = Daemon(private_folder, redis=redis)
    with (
        contextlib.closing(make(daemon.url, retry_seconds=60).listen(queue)) as messages,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(next, messages)
        wait_until(lambda: listeners(redis, queue) == 1)
        keys = [
            http.post(f"/q/{queue}", content=BINARY, headers={"Content-Type": "application/octet-stream"}).text.strip()
        ]
        assert waiting.result(20) == Message(keys[0], BINARY)
        daemon.kill()
        # Without a consumer the messages would wait in the queue; with another one, they only go into the history.
        with httpx.stream("GET", f"{http.base_url}/c/{queue}", timeout=60) as other:
            wait_until(lambda: listeners(redis, queue) == 1)
            keys += [http.post(f"/q/{queue}", data={"value": str(n)}).text.strip() for n in range(20)]
            list(itertools.islice(other.iter_lines(), 20))
            daemon.start()
            found = [next(messages).key for _ in keys[1:]]
        assert found == keys[1:]
    daemon.stop()


def test_a_tap_yields_copies_and_reports_gaps(
    make: Make, private_folder: Path, redis: Redis, http: httpx.Client, queue: str
) -> None:
    gaps: list[str] = []
    daemon = Daemon(private_folder, redis=redis)
    with (
        contextlib.closing(make(daemon.url, retry_seconds=60).tap(queue, on_gap=gaps.append)) as messages,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(next, messages)
        wait_until(lambda: redis.command("PUBSUB", "NUMSUB", f"{queue}:PUBSUB:TAP")[1] == 1)
        wait_until(lambda: redis.command("EXISTS", f"{queue}:tapped") == 1)
        key = http.post(f"/q/{queue}", content=BINARY, headers={"Content-Type": "image/png"}).text.strip()
        found = waiting.result(20)
        assert (found.key, found.value, found.more["content_type"]) == (key, BINARY, "image/png")
        daemon.kill()
        redis.command("DEL", f"{queue}:tapped")
        http.post(f"/q/{queue}", data={"value": "missed"})
        daemon.start()
        waiting = pool.submit(next, messages)
        wait_until(lambda: redis.command("EXISTS", f"{queue}:tapped") == 1)
        new = http.post(f"/q/{queue}", data={"value": "new"}).text.strip()
        assert waiting.result(20).key == new
        assert gaps == [key]
    daemon.stop()
    assert [http.get(f"/q/{queue}").json()["key"] for _ in range(3)][::2] == [key, new]


def test_consume_takes_from_the_first_of_several_queues(client: Any, queue: str) -> None:
    high, low = f"{queue}-high", f"{queue}-low"
    client.publish(low, "1")
    client.publish(high, "2")
    with contextlib.closing(client.consume([high, low], lease_seconds=60)) as messages:
        found = [next(messages) for _ in range(2)]
    assert [(message.text, message.more["queue"]) for message in found] == [("2", high), ("1", low)]
    assert client.ack_many(found[:1]) == [True]


def test_a_gap_in_the_history_is_reported(client: Any, http: httpx.Client, redis: Redis, queue: str) -> None:
    client.configure(queue, history=2)
    with httpx.stream("GET", f"{http.base_url}/c/{queue}", timeout=60) as other:
        wait_until(lambda: listeners(redis, queue) == 1)
        keys = [client.publish(queue, str(n)) for n in range(5)]
        list(itertools.islice(other.iter_lines(), 5))
    gaps: list[str] = []
    with contextlib.closing(client.listen(queue, last_key=keys[0], on_gap=gaps.append)) as messages:
        assert [next(messages).key for _ in range(2)] == keys[3:]
    assert gaps == keys[:1]


def test_listen_with_leases_holds_its_prefetch_and_returns_unacked_messages(client: Any, queue: str) -> None:
    client.configure(queue, policy="roundrobin")
    keys = [client.publish(queue, value) for value in "abc"]
    with contextlib.closing(client.listen(queue, lease_seconds=600, prefetch=1)) as messages:
        first = next(messages)
        client.ack(first)
        assert [first.key, next(messages).key] == keys[:2]
    wait_until(lambda: client.stats(queue)["ready"] == 2)
    assert client.lease(queue, 60).count == 2


def test_listen_with_leases_is_rejected_for_a_broadcast_queue(client: Any, queue: str) -> None:
    with pytest.raises(Conflict, match="roundrobin"):
        next(client.listen(queue, lease_seconds=5))


# Stopping


def test_stop_ends_waiting_calls_and_iterators(daemon: Daemon, http: httpx.Client, redis: Redis, queue: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        client = Client(daemon.url)
        away = Client(f"http://127.0.0.1:{free_port()}", retry_seconds=600)
        retrying = threading.Event()
        away.on_retry = lambda _error, _seconds: retrying.set()
        waiting = pool.submit(client.take, queue, wait_seconds=60)
        consuming = pool.submit(list, client.consume(queue))
        listening = pool.submit(list, client.listen(queue))
        trying = pool.submit(away.take, queue)
        wait_until(lambda: http.get(f"/stats/{queue}").json()["waiters"] == 2)
        wait_until(lambda: listeners(redis, queue) == 1)
        assert retrying.wait(20)
        client.stop()
        away.stop()
        assert (consuming.result(20), listening.result(20)) == ([], [])
        for ended in (waiting, trying):
            with pytest.raises(Stopped):
                ended.result(20)
        with pytest.raises(Stopped):
            client.publish(queue, "too late")
    wait_until(lambda: http.get(f"/stats/{queue}").json()["waiters"] == 0)
    client.twin().publish(queue, "stays")
    assert http.get(f"/q/{queue}").json()["value"] == "stays"


def test_cancelling_a_deferred_ends_its_long_poll(run: Run, daemon: Daemon, http: httpx.Client, queue: str) -> None:
    client = InThread(run, daemon.url)
    outcome: list[Any] = []

    async def begin() -> defer.Deferred[Message | None]:
        waiting = client.client.take(queue, wait_seconds=60)
        waiting.addBoth(outcome.append)
        return [waiting]  # type: ignore[return-value]  # in a list, or the coroutine would wait for it

    (waiting,) = run(begin)
    wait_until(lambda: http.get(f"/stats/{queue}").json()["waiters"] == 1)

    async def cancel() -> None:
        waiting.cancel()

    run(cancel)
    wait_until(lambda: http.get(f"/stats/{queue}").json()["waiters"] == 0)
    assert outcome[0].check(defer.CancelledError)
    client.close()


def test_threads_share_a_client(daemon: Daemon, queue: str) -> None:
    with Client(daemon.url) as client, ThreadPoolExecutor(16) as pool:
        keys = list(pool.map(lambda n: client.publish(queue, str(n)), range(500)))
        found = list(pool.map(lambda _: client.take(queue), range(500)))
    assert len(set(keys)) == 500
    assert {message.key for message in found if message} == set(keys)


# leased


def test_a_lease_is_extended_while_the_work_runs_and_acked_at_its_end(
    client: Any, http: httpx.Client, redis: Redis, queue: str
) -> None:
    client.publish(queue, "dig")

    def ends_ms() -> int:
        ((_, score),) = [redis.command("ZRANGE", f"{queue}:leased", "0", "-1", "WITHSCORES")]
        return int(float(score))

    with client.leased(queue, 1.5) as message:
        assert message.value == b"dig"
        first = ends_ms()
        wait_until(lambda: ends_ms() > first + 1500)  # more than one lease later it is still leased
    totals = http.get(f"/stats/{queue}").json()["totals"]
    assert (totals["acked"], totals["redelivered"]) == (1, 0)
    with client.leased(queue) as nothing:
        assert nothing is None


def test_a_message_whose_work_raises_an_exception_returns_with_its_text(
    client: Any, http: httpx.Client, queue: str
) -> None:
    key = client.publish(queue, "dig")
    with pytest.raises(ZeroDivisionError), client.leased(queue):
        raise ZeroDivisionError("no such hole")
    found = client.find(key)
    assert (found.more["state"], found.more["reason"]) == ("ready", "ZeroDivisionError: no such hole")


def test_work_that_lost_its_lease_is_told(client: Any, http: httpx.Client, queue: str) -> None:
    key = client.publish(queue, "dig")
    with pytest.raises(LeaseGone), client.leased(queue):
        http.post("/queue", json={"cmd": "del", "queue": queue, "key": key})


def test_a_stopped_client_still_acks_the_message_whose_work_is_done(
    daemon: Daemon, http: httpx.Client, queue: str
) -> None:
    with Client(daemon.url) as client:
        client.publish(queue, "dig")
        with client.leased(queue):
            client.stop()
    assert http.get(f"/stats/{queue}").json()["totals"]["acked"] == 1


def test_a_cancelled_task_gives_its_message_back(
    daemon: Daemon, http: httpx.Client, loop: asyncio.AbstractEventLoop, queue: str
) -> None:
    http.post(f"/q/{queue}", data={"value": "dig"})
    began = threading.Event()

    async def work() -> None:
        async with AsyncClient(daemon.url) as client, client.leased(queue, 600):
            began.set()
            await asyncio.Event().wait()

    task = asyncio.run_coroutine_threadsafe(work(), loop)
    assert began.wait(20)
    task.cancel()
    wait_until(lambda: http.get(f"/stats/{queue}").json()["ready"] == 1)


def test_a_cancelled_deferred_gives_its_message_back_without_a_reason(
    run: Run, daemon: Daemon, http: httpx.Client, queue: str
) -> None:
    key = http.post(f"/q/{queue}", data={"value": "dig"}).text.strip()
    client = InThread(run, daemon.url)
    began = threading.Event()
    outcome: list[Any] = []

    async def work() -> None:
        async with client.client.leased(queue, 600):
            began.set()
            await defer.Deferred()

    async def begin() -> list[defer.Deferred[None]]:
        return [defer.ensureDeferred(work()).addBoth(outcome.append)]  # in a list, or run() would wait for it

    (working,) = run(begin)
    assert began.wait(20)

    async def cancel() -> None:
        working.cancel()

    run(cancel)
    wait_until(lambda: outcome)
    assert outcome[0].check(defer.CancelledError)
    message = http.get(f"/m/{key}").json()
    assert (message["state"], message.get("reason")) == ("ready", None)
    client.close()


def test_ctrl_c_ends_a_loop_over_messages_without_a_traceback(daemon: Daemon, queue: str) -> None:
    with Client(daemon.url) as client:
        client.publish(queue, "one")
        with client.until_interrupted():
            for message in client.consume(queue):
                assert message.value == b"one"
                os.kill(os.getpid(), signal.SIGINT)


# Types


@pytest.mark.parametrize("value", [5, True, None, [65, 66], {"a": 1}])
def test_a_value_that_is_no_text_and_no_bytes_is_a_type_error(client: Any, queue: str, value: Any) -> None:
    with pytest.raises(TypeError, match=r"pass str\(value\) or json.dumps"):
        client.publish(queue, value)
    with pytest.raises(TypeError, match="pass str"):
        client.publish_many(queue, ["a", value])


def test_one_text_is_no_list_of_texts(client: Any, queue: str) -> None:
    with pytest.raises(TypeError, match="pass a list of values"):
        client.publish_many(queue, "abc")
    with pytest.raises(TypeError, match="pass a list of names"):
        client.take_first("abc")


def test_only_a_leased_message_can_be_acked(client: Any, queue: str) -> None:
    key = client.publish(queue, "x")
    for use in (client.ack, client.nack, lambda message: client.extend(message, 5)):
        with pytest.raises(TypeError, match="pass the Message"):
            use(key)
    message = client.take(queue)
    with pytest.raises(InvalidInput, match="was not leased"):
        client.ack(message)
    with pytest.raises(TypeError, match="number of seconds"):
        client.lease(queue, "30")


CHECKED = """
from typing import assert_type
from twisted.internet.defer import Deferred
from restmq.client import AsyncClient, Client, Message
from restmq.client.deferred import DeferredClient

async def types(blocking: Client, asyncio: AsyncClient, deferred: DeferredClient) -> None:
    assert_type(blocking.publish("q", "a", delay_seconds=1), str)
    assert_type(await asyncio.take("q"), Message | None)
    assert_type(deferred.queues(), Deferred[list[str]])
    with blocking.leased("q") as one:
        assert_type(one, Message | None)
    async with deferred.leased("q") as another:
        assert_type(another, Message | None)
    blocking.publish(1, delay=2)  # two errors
"""


def test_a_type_checker_knows_arguments_and_results(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(CHECKED)
    cache = f"--cache-dir={tmp_path}/cache"
    flags = ["--follow-imports=silent", "--config-file=", cache]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *flags, tmp_path / "program.py"], cwd=ROOT, capture_output=True, text=True
    )
    wrong = [line for line in checked.stdout.splitlines() if "program.py" in line]
    assert wrong, checked.stderr
    assert all(f"program.py:{CHECKED.count(chr(10))}: error" in line for line in wrong), wrong
    assert any('"delay"' in line for line in wrong), wrong


def test_bytearrays_and_views_are_values_too(client: Any, queue: str) -> None:
    client.publish(queue, bytearray(b"ab"))
    client.publish(queue, memoryview(b"cd"))
    assert [message.value for message in client.take_many(queue, 5)] == [b"ab", b"cd"]


def test_a_url_needs_no_scheme(daemon: Daemon, queue: str) -> None:
    with Client(f"127.0.0.1:{daemon.port}") as client:
        assert client.take(queue) is None
        assert client.server.url == daemon.url
