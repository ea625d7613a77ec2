"""Live consumers get messages at once and in order, whichever daemon they are connected to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import httpx
import pytest

from tests.servers import Comet, Daemon, Redis, curl, listeners, messages_in, stopping, wait_until


@pytest.fixture
def daemons(private_folder: Path, private_redis: Redis) -> Iterator[list[Daemon]]:
    """Three daemons on one Redis."""
    servers = [Daemon(private_folder / str(i), redis=private_redis) for i in range(3)]
    with stopping(*servers):
        yield servers


def post(daemon: Daemon, queue: str, *values: str) -> list[str]:
    with daemon.client() as http:
        return [http.post(f"/q/{queue}", data={"value": value}).text.strip() for value in values]


def keys_of(lines: list[bytes]) -> list[str]:
    return [json.loads(line)["key"] for line in lines]


def listen(daemon: Daemon, redis: Redis, queue: str, path: str = "/c/", headers: str = "") -> Comet:
    """Connects a consumer, and waits until its daemon is subscribed to the queue."""
    comet = Comet(daemon, f"{path}{queue}", headers)
    wait_until(lambda: listeners(redis, queue), why="the daemon listens")
    return comet


def test_comet_sends_its_headers_before_any_message(daemon: Daemon, queue: str) -> None:
    comet = Comet(daemon, f"/c/{queue}")
    assert b"HTTP/1.1 200 OK" in comet.head
    assert b"text/plain" in comet.head
    comet.close()


def test_comet_over_http_1_0_is_not_chunked(daemon: Daemon, redis: Redis, queue: str) -> None:
    comet = Comet(daemon, f"/c/{queue}", version="1.0")
    assert not comet.chunked
    wait_until(lambda: listeners(redis, queue))
    key = post(daemon, queue, "old")[0]
    assert keys_of(comet.lines(1)) == [key]
    comet.close()


def test_a_consumer_gets_the_backlog_first_then_new_messages_in_order(daemon: Daemon, queue: str) -> None:
    before = post(daemon, queue, *map(str, range(500)))
    comet = Comet(daemon, f"/c/{queue}")
    after = post(daemon, queue, *map(str, range(500, 700)))
    assert keys_of(comet.lines(700)) == before + after
    comet.close()


def test_a_live_message_leaves_nothing_in_the_queue(
    daemon: Daemon, redis: Redis, http: httpx.Client, queue: str
) -> None:
    comet = listen(daemon, redis, queue)
    post(daemon, queue, "x")
    comet.lines(1)
    assert http.get(f"/q/{queue}").status_code == 204
    comet.close()


@pytest.mark.needs("curl")
def test_curl_prints_messages_as_they_are_published(daemon: Daemon, redis: Redis, queue: str) -> None:
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(curl("--no-buffer", f"{daemon.url}/c/{queue}")))
    reader.start()
    wait_until(lambda: listeners(redis, queue))
    key = post(daemon, queue, "seen by curl")[0]
    with daemon.client() as http:
        http.delete(f"/q/{queue}")  # ends the stream properly: curl exits with 0
    reader.join(20)
    assert heard == [b'{"key":"%b","value":"seen by curl"}\r\n' % key.encode()]


def test_comet_with_a_callback_sends_jsonp(daemon: Daemon, redis: Redis, queue: str) -> None:
    comet = Comet(daemon, f"/c/{queue}?callback=app.show")
    wait_until(lambda: listeners(redis, queue))
    assert b"application/javascript" in comet.head
    key = post(daemon, queue, "v")[0]
    assert comet.lines(1) == [b'app.show({"key":"%b","value":"v"});' % key.encode()]
    comet.close()


def test_broadcast_reaches_every_consumer_of_every_daemon_once_and_in_order(
    daemons: list[Daemon], private_redis: Redis
) -> None:
    consumers = [listen(daemon, private_redis, "all") for daemon in daemons for _ in range(3)]
    wait_until(lambda: listeners(private_redis, "all") == 3)
    producers = [threading.Thread(target=post, args=(daemon, "all", *map(str, range(100)))) for daemon in daemons]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join()
    for consumer in consumers:
        assert keys_of(consumer.lines(300)) == [f"all:{n}" for n in range(1, 301)]


def test_round_robin_on_one_daemon_goes_in_strict_turns(
    daemon: Daemon, redis: Redis, http: httpx.Client, queue: str
) -> None:
    http.post(f"/p/{queue}", data={"policy": "roundrobin"})
    consumers = []
    for count in range(1, 4):
        consumers.append(Comet(daemon, f"/c/{queue}"))
        wait_until(lambda count=count: joined(daemon, queue) == count)
    keys = post(daemon, queue, *map(str, range(9)))
    heard = [keys_of(consumer.lines(3)) for consumer in consumers]
    assert heard == [keys[0::3], keys[1::3], keys[2::3]]


def joined(daemon: Daemon, queue: str) -> int:
    with daemon.client() as http:
        return int(http.get(f"/stats/{queue}").json()["consumers"])


def test_round_robin_gives_each_message_to_one_of_all_daemons_in_fair_shares(
    daemons: list[Daemon], private_redis: Redis
) -> None:
    with daemons[0].client() as http:
        http.post("/p/jobs", data={"policy": "roundrobin"})
    consumers = [listen(daemon, private_redis, "jobs") for daemon in daemons]
    wait_until(lambda: private_redis.command("ZCARD", "jobs:turns") == 3)
    keys = post(daemons[0], "jobs", *map(str, range(1000)))
    wait_until(lambda: private_redis.command("LLEN", "jobs:queue") == 0)
    with daemons[0].client() as http:
        http.delete("/q/jobs")
    shares = [messages_in(consumer.wait_for_end().decode()) for consumer in consumers]
    assert sorted(chain(*shares)) == sorted(keys)
    for share in shares:
        assert 1000 / 3 * 0.8 <= len(share) <= 1000 / 3 * 1.2


def test_without_consumers_messages_wait_and_the_first_consumer_gets_them(
    daemons: list[Daemon], private_redis: Redis
) -> None:
    first = listen(daemons[0], private_redis, "wait")
    first.close()
    wait_until(lambda: not listeners(private_redis, "wait"))
    keys = post(daemons[1], "wait", "a", "b", "c")
    late = Comet(daemons[2], "/c/wait")
    assert keys_of(late.lines(3)) == keys


def test_stop_start_and_policy_on_one_daemon_take_effect_on_all(daemons: list[Daemon], private_redis: Redis) -> None:
    consumers = [listen(daemon, private_redis, "ctl") for daemon in daemons]
    wait_until(lambda: listeners(private_redis, "ctl") == 3)
    with daemons[0].client() as here, daemons[1].client() as there:
        here.post("/control/ctl", data={"status": "stop"})
        stopped = post(daemons[2], "ctl", "1", "2")
        assert private_redis.command("LLEN", "ctl:queue") == 2
        assert there.get("/control/ctl").json()["status"]["status"] == 0
        there.post("/control/ctl", data={"status": "start"})
        for consumer in consumers:
            assert keys_of(consumer.lines(2)) == stopped
        there.post("/p/ctl", data={"policy": "roundrobin"})
        wait_until(lambda: private_redis.command("ZCARD", "ctl:turns") == 3)
        keys = post(daemons[2], "ctl", *map(str, range(30)))
        wait_until(lambda: private_redis.command("LLEN", "ctl:queue") == 0)
        here.delete("/q/ctl")
    assert sorted(messages_in("".join(c.wait_for_end().decode() for c in consumers))) == sorted(keys)


def test_delete_closes_the_consumers_of_all_daemons_and_sends_no_null_message(
    daemons: list[Daemon], private_redis: Redis
) -> None:
    consumers = [listen(daemon, private_redis, "gone") for daemon in daemons for _ in range(4)]
    wait_until(lambda: listeners(private_redis, "gone") == 3)
    with daemons[1].client() as http:
        assert http.delete("/q/gone").json() == {"queue": "gone", "status": 0}
    for consumer in consumers:
        assert consumer.wait_for_end() == b""
        assert consumer.ended  # by a last chunk, not by a cut


def test_a_killed_daemon_delays_no_other_daemons_consumers(daemons: list[Daemon], private_redis: Redis) -> None:
    with daemons[0].client() as http:
        http.post("/p/work", data={"policy": "roundrobin"})
    consumers = [listen(daemon, private_redis, "work") for daemon in daemons]
    wait_until(lambda: private_redis.command("ZCARD", "work:turns") == 3)
    daemons[2].kill()
    keys = post(daemons[0], "work", *map(str, range(100)))
    wait_until(lambda: private_redis.command("LLEN", "work:queue") == 0, 10)
    with daemons[0].client() as http:
        http.delete("/q/work")
    heard = [messages_in(consumer.wait_for_end().decode()) for consumer in consumers[:2]]
    assert sorted(chain(*heard)) == sorted(keys)
    assert all(heard)


def test_a_dead_daemon_is_removed_from_the_turns(daemons: list[Daemon], private_redis: Redis) -> None:
    with daemons[0].client() as http:
        http.post("/p/left", data={"policy": "roundrobin"})
    consumer = listen(daemons[0], private_redis, "left")
    wait_until(lambda: private_redis.command("ZCARD", "left:turns") == 1)
    private_redis.command("ZADD", "left:turns", "-5", "RESTMQ-DAEMON:nobody")
    keys = post(daemons[1], "left", "1", "2")
    assert keys_of(consumer.lines(2)) == keys
    assert "RESTMQ-DAEMON:nobody" not in private_redis.command("ZRANGE", "left:turns", "0", "-1")


def test_messages_written_with_redis_cli_are_delivered(daemons: list[Daemon], private_redis: Redis) -> None:
    consumer = listen(daemons[0], private_redis, "byhand")
    private_redis.command("SET", "byhand:77", "laid by hand")
    private_redis.command("LPUSH", "byhand:queue", "byhand:77")
    assert keys_of(consumer.lines(1)) == ["byhand:77"]


def test_all_consumers_stay_connected_when_redis_restarts(daemons: list[Daemon], private_redis: Redis) -> None:
    consumers = [listen(daemon, private_redis, "store") for daemon in daemons[:2]]
    wait_until(lambda: listeners(private_redis, "store") == 2)
    before = post(daemons[0], "store", "before")
    for consumer in consumers:
        assert keys_of(consumer.lines(1)) == before
    private_redis.kill()
    with daemons[0].client() as http:
        refused = http.post("/q/store", data={"value": "while it is away"})
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        private_redis.start()
        wait_until(lambda: http.get("/stats/store").status_code == 200)
    wait_until(lambda: listeners(private_redis, "store") == 2)
    after = post(daemons[2], "store", "after") if wait_until(lambda: up(daemons[2])) else []
    for consumer in consumers:
        assert keys_of(consumer.lines(1)) == after


def up(daemon: Daemon) -> bool:
    with daemon.client() as http:
        return http.get("/stats/").status_code == 200


def test_a_slow_broadcast_consumer_is_dropped_and_the_others_get_everything(
    private_folder: Path, private_redis: Redis
) -> None:
    limits = ("--max-unsent", "100000", "--stall-timeout", "1")
    with stopping(Daemon(private_folder, *limits, redis=private_redis)) as daemon:
        slow, quick = (listen(daemon, private_redis, "slow") for _ in range(2))
        big = "x" * 100_000
        keys = []
        with daemon.client() as http:
            while "was dropped" not in daemon.log:
                keys.append(http.post("/q/slow", data={"value": big}).text.strip())
                assert keys_of(quick.lines(1)) == keys[-1:]
                assert len(keys) < 500, "it takes all that"
            keys.append(http.post("/q/slow", data={"value": "after"}).text.strip())
        assert keys_of(quick.lines(1)) == keys[-1:]
        slow.wait_for_end()
        assert not slow.ended  # cut, and seen to be cut
        assert daemon.log.count("was dropped") == 1


def test_round_robin_skips_a_consumer_that_does_not_read(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        http.post("/p/rr", data={"policy": "roundrobin"})
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", daemon.port))
        deaf.sendall(b"GET /c/rr HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        wait_until(lambda: joined(daemon, "rr") == 1)
        quick = Comet(daemon, "/c/rr")
        wait_until(lambda: joined(daemon, "rr") == 2)
        big = "x" * 200_000
        keys = [http.post("/q/rr", data={"value": big}).text.strip() for _ in range(100)]
        last = http.post("/q/rr", data={"value": "last"}).text.strip()
        heard: list[str] = []
        while last not in heard:
            heard += keys_of(quick.lines(1))
        assert 60 < len(heard) < 101  # about half until the other was full, then all
        assert heard == [key for key in [*keys, last] if key in heard]
        assert "was dropped" not in daemon.log
        deaf.close()


def test_a_lost_notice_of_an_ack_does_not_block_the_consumer(daemons: list[Daemon], private_redis: Redis) -> None:
    with daemons[0].client() as here, daemons[1].client() as there:
        here.post("/p/jobs", data={"policy": "roundrobin"})
        leasing = Comet(daemons[0], "/c/jobs?lease=600&prefetch=1")
        post(daemons[0], "jobs", "first", "second")
        (line,) = leasing.lines(1)
        first = json.loads(line)
        private_redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        answer = there.delete(f"/m/{first['key']}", params={"receipt": first["receipt"]})
        assert answer.status_code == 204
        (line,) = leasing.lines(1)
        assert json.loads(line)["value"] == "second"
        leasing.close()


def test_a_thousand_idle_consumers_cause_few_calls_to_redis(private_folder: Path, private_redis: Redis) -> None:
    with stopping(Daemon(private_folder, redis=private_redis)) as daemon:
        consumers = [Comet(daemon, f"/c/many-{n % 50}") for n in range(1000)]
        wait_until(lambda: listeners(private_redis, "many-49"))
        before = int(calls_served(private_redis))
        window_seconds = 6
        threading.Event().wait(window_seconds)  # what is measured is a time without events
        assert calls_served(private_redis) - before - 1 <= window_seconds
        for consumer in consumers:
            consumer.close()


def calls_served(redis: Redis) -> int:
    text = redis.command("INFO", "stats")
    return int(next(line for line in text.splitlines() if line.startswith("total_reads_processed")).split(":")[1])
