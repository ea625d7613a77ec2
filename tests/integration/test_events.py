"""Server-Sent Events, and reconnecting to a queue that keeps a history."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import httpx
import pytest

from tests.servers import Comet, Daemon, Redis, listeners, stopping, wait_until


def events(stream: Comet, count: int) -> list[dict[str, str]]:
    """This number of events, as EventSource reads them; without comments and retry."""
    found: list[dict[str, str]] = []
    while len(found) < count:
        (block,) = stream.lines(1, b"\n\n")
        fields = re.findall(r"^(id|data|event): (.*)$", block.decode(), re.MULTILINE)
        if fields:
            event = {name: value for name, value in fields if name != "data"}
            found.append({**event, "data": "\n".join(value for name, value in fields if name == "data")})
    return found


def post(http: httpx.Client, queue: str, value: str) -> str:
    return http.post(f"/q/{queue}", data={"value": value}).text.strip()


@pytest.mark.parametrize(("path", "headers"), [("/sse/", ""), ("/c/", "Accept: text/event-stream\r\n")])
def test_events_carry_key_and_value(
    daemon: Daemon, redis: Redis, http: httpx.Client, queue: str, path: str, headers: str
) -> None:
    stream = Comet(daemon, path + queue, headers)
    assert b"text/event-stream" in stream.head
    assert b"Cache-Control: no-store" in stream.head
    assert b"X-Accel-Buffering: no" in stream.head
    assert stream.lines(1, b"\n") == [b"retry: 2000"]
    wait_until(lambda: listeners(redis, queue))
    key = post(http, queue, "one\ntwo\r\nthree")
    assert events(stream, 1) == [{"id": key, "data": "one\ntwo\nthree"}]
    stream.close()


def test_an_event_stream_of_an_unknown_queue_stays_open(daemon: Daemon, queue: str) -> None:
    stream = Comet(daemon, f"/sse/{queue}")
    assert stream.head.startswith(b"HTTP/1.1 200 ")
    stream.close()


def test_a_consumer_that_reconnects_gets_missed_messages_then_new_ones(
    daemon: Daemon, redis: Redis, http: httpx.Client, queue: str
) -> None:
    http.post(f"/p/{queue}", data={"history": "100"})
    assert http.get(f"/p/{queue}").json() == {"queue": queue, "value": "broadcast", "history": 100}
    witness = Comet(daemon, f"/c/{queue}")
    wait_until(lambda: listeners(redis, queue))
    keys = [post(http, queue, str(n)) for n in range(10)]
    witness.lines(10)
    back = Comet(daemon, f"/sse/{queue}", f"Last-Event-ID: {keys[3]}\r\n")
    assert [event["id"] for event in events(back, 6)] == keys[4:]
    keys.append(post(http, queue, "live"))
    assert [event["id"] for event in events(back, 1)] == keys[-1:]


@pytest.mark.parametrize("path", ["/c/", "/sse/"])
def test_an_id_older_than_the_history_causes_a_gap_notice(
    daemon: Daemon, redis: Redis, http: httpx.Client, queue: str, path: str
) -> None:
    http.post(f"/p/{queue}", data={"history": "3"})
    witness = Comet(daemon, f"/c/{queue}")
    wait_until(lambda: listeners(redis, queue))
    keys = [post(http, queue, str(n)) for n in range(10)]
    witness.lines(10)
    back = Comet(daemon, f"{path}{queue}?last_event_id={keys[1]}")
    if path == "/sse/":
        gap, *missed = events(back, 4)
        assert gap["event"] == "gap"
        assert json.loads(gap["data"])["last_event_id"] == keys[1]
        assert [event["id"] for event in missed] == keys[7:]
    else:
        gap_line, *lines = map(json.loads, back.lines(4))
        assert gap_line == {"event": "gap", "last_event_id": keys[1]}
        assert [line["key"] for line in lines] == keys[7:]


def test_without_a_history_a_consumer_that_reconnects_gets_only_new_messages(
    daemon: Daemon, http: httpx.Client, queue: str
) -> None:
    waiting = [post(http, queue, str(n)) for n in range(3)]
    back = Comet(daemon, f"/sse/{queue}?last_event_id={queue}:99")
    assert [event["id"] for event in events(back, 3)] == waiting


def test_an_expired_message_is_not_in_the_history(daemon: Daemon, redis: Redis, http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"history": "10"})
    witness = Comet(daemon, f"/c/{queue}")
    wait_until(lambda: listeners(redis, queue))
    first = post(http, queue, "first")
    http.post(f"/q/{queue}", data={"value": "soon gone", "ttl": "0.05"})
    last = post(http, queue, "last")
    witness.lines(3)
    wait_until(lambda: redis.command("HVALS", f"{queue}:historyvalues"))

    def seen() -> list[str]:
        back = Comet(daemon, f"/sse/{queue}?last_event_id={first}")
        found = events(back, 1)
        back.close()
        return [event["id"] for event in found]

    wait_until(lambda: seen() == [last], why="the expired one is passed over")


def test_replay_has_neither_gap_nor_repeat_while_messages_arrive(private_folder: Path, private_redis: Redis) -> None:
    daemons = [Daemon(private_folder / str(i), redis=private_redis) for i in range(2)]
    with stopping(*daemons), daemons[0].client() as http:
        http.post("/p/seam", data={"history": "10000"})
        witness = Comet(daemons[0], "/c/seam")
        wait_until(lambda: listeners(private_redis, "seam"))
        done = threading.Event()
        posted: list[str] = []

        def produce() -> None:
            with daemons[0].client() as producer:
                while not done.is_set():
                    posted.append(post(producer, "seam", "x"))

        producer = threading.Thread(target=produce)
        producer.start()
        wait_until(lambda: len(posted) > 20)
        seen = [posted[0]]
        for turn in range(30):  # comes back again and again, to one daemon and the other
            stream = Comet(daemons[turn % 2], f"/sse/seam?last_event_id={seen[-1]}")
            seen += [event["id"] for event in events(stream, 15)]
            stream.close()
        done.set()
        producer.join()
        assert seen == [f"seam:{n}" for n in range(1, len(seen) + 1)]
        witness.close()
