"""Long polls and deadlines while Redis restarts, and while daemons stop."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.servers import Daemon, Redis, stopping, wait_until


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(16)


def waiters(http: httpx.Client, queue: str = "test") -> int:
    found = http.get(f"/stats/{queue}")
    return int(found.json()["waiters"]) if found.status_code == 200 else -1


def wait_on(pool: ThreadPoolExecutor, daemon: Daemon, parameters: str = "wait=60"):  # type: ignore[no-untyped-def]
    return pool.submit(httpx.get, f"{daemon.url}/q/test?{parameters}", timeout=70)


def served(daemon: Daemon, parameters: str) -> httpx.Response:
    """Repeats the request while the answer is 503."""

    def answer() -> httpx.Response | None:
        found = httpx.get(f"{daemon.url}/q/test?{parameters}", timeout=70)
        return None if found.status_code == 503 else found

    return wait_until(answer)  # type: ignore[no-any-return]


def test_a_waiting_client_is_served_after_redis_was_killed_and_restarted(
    private_folder: Path, private_redis: Redis, pool: ThreadPoolExecutor
) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        waiting = [wait_on(pool, daemon) for _ in range(3)]
        wait_until(lambda: waiters(http) == 3)
        wait_until(lambda: private_redis.command("ZCARD", "test:waiters"))  # nothing more to ask: all is said
        private_redis.kill()
        private_redis.start()
        wait_until(lambda: waiters(http) == 3)
        wait_until(lambda: http.post("/q/test", data={"value": "a"}).status_code == 200)
        for value in "bc":
            http.post("/q/test", data={"value": value})
        assert sorted(answer.result().json()["value"] for answer in waiting) == ["a", "b", "c"]


def test_a_client_keeps_waiting_while_redis_loads_its_data_from_disk(
    private_folder: Path, private_redis: Redis, pool: ThreadPoolExecutor
) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        waiting = wait_on(pool, daemon)
        wait_until(lambda: private_redis.command("ZCARD", "test:waiters"))
        private_redis.commands([("SET", f"other:{number}", "x" * 200) for number in range(1000)])
        private_redis.command("BGREWRITEAOF")
        wait_until(lambda: "aof_rewrite_in_progress:0" in private_redis.command("INFO", "persistence"))
        private_redis.kill()
        # Slow reading that answers meanwhile, and goes on until it was seen.
        private_redis.options = ("--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024")
        starting = pool.submit(private_redis.start)
        wait_until(lambda: "reading its data" in http.post("/q/test", data={"value": "x"}).text)
        private_redis.command("CONFIG", "SET", "key-load-delay", "0")
        starting.result()
        wait_until(lambda: http.post("/q/test", data={"value": "a"}).status_code == 200)
        assert waiting.result().json()["value"] == "a"
    assert "refused an operation" not in daemon.log


def test_a_request_while_redis_is_away_gets_503_in_time(
    private_folder: Path, private_redis: Redis, pool: ThreadPoolExecutor
) -> None:
    daemon = Daemon(private_folder, "--redis-timeout", "1", redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        http.post("/q/test", data={"value": "kept"})
        private_redis.kill()
        wait_until(lambda: http.get("/stats/test").status_code == 503)
        for parameters in ("wait=60", "wait=60&lease=5", "lease=5"):
            answer = wait_on(pool, daemon, parameters).result()
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        private_redis.start()
        assert served(daemon, "wait=60").json()["value"] == "kept"


def test_a_hanging_redis_fails_all_requests_in_time(
    private_folder: Path, private_redis: Redis, pool: ThreadPoolExecutor
) -> None:
    daemon = Daemon(private_folder, "--redis-timeout", "1", redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        assert http.get("/q/test?wait=0.01").status_code == 204
        private_redis.pause()
        assert wait_on(pool, daemon).result().status_code == 503
        private_redis.go_on()
        wait_until(lambda: waiters(http) == 0)


def test_a_lease_that_ends_while_redis_is_away_comes_back_when_redis_is_back(
    private_folder: Path, private_redis: Redis, pool: ThreadPoolExecutor
) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        http.post("/q/test", data={"value": "work"})
        held = http.get("/q/test?lease=1").json()
        http.post("/q/test", data={"value": "delayed", "delay": "1"})
        private_redis.kill()
        private_redis.start()
        found = [pool.submit(served, daemon, "wait=60&lease=60") for _ in range(2)]
        messages = [answer.result().json() for answer in found]
        assert {message["value"] for message in messages} == {"work", "delayed"}
        assert held["receipt"] not in {message["receipt"] for message in messages}


def test_messages_due_while_no_daemon_runs_are_promoted_when_one_starts(
    private_folder: Path, private_redis: Redis, pool: ThreadPoolExecutor
) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    with daemon.client() as http:
        http.post("/q/test", data={"value": "later", "delay": "0.3"})
        http.post("/q/test", data={"value": "work"})
        http.get("/q/test?lease=1")
    daemon.stop()
    daemon.start()
    with stopping(daemon), daemon.client() as http:
        wait_until(lambda: http.get("/stats/test").json()["ready"] == 2)
        assert private_redis.command("EXISTS", "QUEUEDUE") == 0


def test_a_daemon_that_stops_answers_waiting_clients_and_loses_no_message(
    private_folder: Path, private_redis: Redis, pool: ThreadPoolExecutor
) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    other = Daemon(private_folder / "other", redis=private_redis)
    with stopping(daemon, other), daemon.client() as http, other.client() as there:
        waiting = [wait_on(pool, daemon) for _ in range(5)]
        wait_until(lambda: waiters(http) == 5)
        daemon.stop()
        assert {answer.result().status_code for answer in waiting} == {204}
        there.post("/q/test", data={"value": "mine"})
        assert there.get("/q/test").json()["value"] == "mine"


def test_a_daemon_killed_while_its_clients_wait_does_not_delay_the_others(
    private_folder: Path, private_redis: Redis, pool: ThreadPoolExecutor
) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    other = Daemon(private_folder / "other", redis=private_redis)
    with stopping(daemon, other), daemon.client() as http, other.client() as there:
        lost = [wait_on(pool, daemon) for _ in range(3)]
        wait_until(lambda: waiters(http) == 3)
        waiting = wait_on(pool, other)
        wait_until(lambda: waiters(there) == 4)
        daemon.kill()
        there.post("/q/test", data={"value": "mine"})
        assert waiting.result().json()["value"] == "mine"
        for answer in lost:
            assert isinstance(answer.exception(), httpx.HTTPError)


def test_a_plain_waiter_and_a_plain_pop_never_share_a_message(
    private_folder: Path, private_redis: Redis, pool: ThreadPoolExecutor
) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        waiting = [wait_on(pool, daemon, "wait=30") for _ in range(8)]
        sent: list[str] = []
        popped: list[str] = []
        while len(sent) < 40 or not all(answer.done() for answer in waiting):
            sent.append(str(len(sent)))
            http.post("/q/test", data={"value": sent[-1]})
            answer = http.get("/q/test")
            if answer.status_code == 200:
                popped.append(answer.json()["value"])
        found = [answer.result().json()["value"] for answer in waiting]
        assert sorted(found + popped, key=int) == sent


def test_a_redis_that_accepts_and_closes_connections_is_not_reported_as_back(
    private_folder: Path, private_redis: Redis
) -> None:
    """A proxy does this if its Redis is down."""
    where = Path(private_redis.socket_path)
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        http.post("/q/test", data={"value": "kept"})
        private_redis.kill()
        wait_until(lambda: http.get("/stats/test").status_code == 503)
        where.unlink()
        with socket.socket(socket.AF_UNIX) as proxy:
            proxy.bind(str(where))
            proxy.listen(100)
            for _ in range(40):
                proxy.accept()[0].close()
        assert "answers again" not in daemon.log
        assert daemon.log.count("is lost") < 10
        where.unlink()
        private_redis.start()
        wait_until(lambda: http.get("/q/test").status_code == 200)
        wait_until(lambda: "answers again" in daemon.log)
