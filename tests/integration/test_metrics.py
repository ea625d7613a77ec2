"""Metrics for Prometheus, and health checks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from restmq.web import ROUTES
from tests.servers import Comet, Daemon, Redis, listeners, stopping, wait_until

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def scrape(http: httpx.Client) -> Samples:
    """All samples, by name and by labels."""
    found: Samples = {}
    for family in parse(http.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name][tuple(sorted(labels.items()))]


@pytest.fixture
def watched(private_folder: Path, private_redis: Redis) -> Iterator[Daemon]:
    """A daemon with labels for two queues, on a Redis of its own."""
    with stopping(Daemon(private_folder / "daemon", "--metrics-queues", "2", redis=private_redis)) as daemon:
        yield daemon


def test_the_metrics_are_valid_prometheus_text(http: httpx.Client, queue: str) -> None:
    http.post(f"/q/{queue}", data={"value": "x"})
    http.post(f'/q/{queue}"\\%20x', data={"value": "x"})
    answer = http.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    for word in ("HELP", "TYPE"):
        named = [line.split(" ")[2] for line in lines if line.startswith(f"# {word} ")]
        assert len(named) == len(set(named))
        assert all(name in named for name in {family.name for family in parse(answer.text) if family.type != "counter"})
    series = [line.rsplit(" ", 1)[0] for line in lines if line and not line.startswith("#")]
    assert len(series) == len(set(series))
    for family in parse(answer.text):
        assert re.fullmatch(r"(restmq|process|python)_[a-z0-9_]+", family.name), family.name
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        assert len({tuple(sorted(set(sample.labels) - {"le"})) for sample in family.samples}) <= 1, family.name
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            assert sample.value >= 0, sample


def test_the_metrics_are_valid_openmetrics_text(http: httpx.Client) -> None:
    answer = http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0, text/plain"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    assert "restmq_messages_published" in {family.name for family in parse_openmetrics(answer.text)}


def test_each_step_of_a_message_is_counted(http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"max_deliveries": 2})
    for value in "abcd":
        http.post(f"/q/{queue}", data={"value": value})
    http.post(f"/q/{queue}", data={"value": "later", "delay": 3600})
    http.get(f"/q/{queue}")
    leased = http.get(f"/q/{queue}?lease=600").json()
    http.delete(f"/m/{leased['key']}", params={"receipt": leased["receipt"]})
    for _ in range(2):
        leased = http.get(f"/q/{queue}?lease=600").json()
        http.post(f"/m/{leased['key']}", data={"receipt": leased["receipt"], "lease": 0})
    http.get(f"/q/{queue}?lease=600")
    samples = scrape(http)
    counted = {
        name: of(samples, f"restmq_messages_{name}_total", queue=queue)
        for name in ("published", "delivered", "leased", "acked", "redelivered", "expired", "dead")
    }
    assert counted == {
        "published": 5, "delivered": 5, "leased": 4, "acked": 1, "redelivered": 1, "expired": 0, "dead": 1
    }  # fmt: skip
    held = {state: of(samples, "restmq_messages", queue=queue, state=state) for state in ("ready", "leased", "delayed")}
    assert held == {"ready": 0, "leased": 1, "delayed": 1}
    assert of(samples, "restmq_messages", queue=queue, state="dead") == 1
    assert (("queue", queue),) not in samples.get("restmq_oldest_message_age_seconds", {})
    http.post(f"/q/{queue}", data={"value": "x"})
    http.post(f"/control/{queue}", data={"status": "stop"})
    samples = scrape(http)
    assert 0 <= of(samples, "restmq_oldest_message_age_seconds", queue=queue) < 60
    assert of(samples, "restmq_queue_started", queue=queue) == 0


def test_consumers_and_waiters_are_counted_by_transport(private_folder: Path, private_redis: Redis, queue: str) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        count_by_transport(http, daemon, private_redis, queue)


def count_by_transport(http: httpx.Client, daemon: Daemon, redis: Redis, queue: str) -> None:
    http.post(f"/q/{queue}", data={"value": "x"})
    http.get(f"/q/{queue}")
    streams = [Comet(daemon, path) for path in (f"/c/{queue}", f"/sse/{queue}", f"/sse/{queue}")]
    wait_until(lambda: listeners(redis, queue))
    with daemon.get(f"/q/{queue}?wait=30"):
        wait_until(lambda: http.get(f"/stats/{queue}").json()["waiters"] == 1)
        samples = scrape(http)
        counted = {
            transport: of(samples, "restmq_consumers", queue=queue, transport=transport)
            for transport in ("comet", "sse", "websocket")
        }
        assert counted == {"comet": 1, "sse": 2, "websocket": 0}
        assert of(samples, "restmq_waiters", queue=queue) == 1
        assert of(samples, "restmq_http_connections") >= 4
        assert of(samples, "restmq_taps") == 0
    for stream in streams:
        stream.close()
    wait_until(lambda: of(scrape(http), "restmq_consumers", queue=queue, transport="sse") == 0)


def test_taps_are_counted_and_are_no_consumers(private_folder: Path, private_redis: Redis, queue: str) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        taps = [Comet(daemon, path) for path in (f"/tap/{queue}", f"/tap/{queue}", f"/tap/{queue}-2")]
        wait_until(lambda: of(scrape(http), "restmq_taps") == 3)
        http.post(f"/q/{queue}", data={"value": "x"})
        assert of(scrape(http), "restmq_consumers", queue=queue, transport="comet") == 0
        for tap in taps:
            tap.close()
        wait_until(lambda: of(scrape(http), "restmq_taps") == 0)


def test_durations_are_counted_by_route_and_never_by_path(http: httpx.Client, queue: str) -> None:
    labels = {"route": "/q/{queue}", "method": "POST", "status": "200"}
    name = "restmq_http_request_duration_seconds"
    before = scrape(http).get(f"{name}_count", {}).get(tuple(sorted(labels.items())), 0)
    for number in range(3):
        http.post(f"/q/{queue}-{number}", data={"value": "x"})
        http.get(f"/nowhere/{queue}-{number}")
    samples = scrape(http)
    assert of(samples, f"{name}_count", **labels) >= before + 3
    assert of(samples, f"{name}_bucket", **labels, le="+Inf") == of(samples, f"{name}_count", **labels)
    seen = {dict(labels)["route"] for labels in samples[f"{name}_count"]}
    assert seen <= {template for template, _ in ROUTES}
    assert {"/q/{queue}", "*"} <= seen


def test_requests_rejected_before_routing_are_counted(daemon: Daemon, http: httpx.Client) -> None:
    def refused() -> float:
        return scrape(http).get("restmq_http_refused_total", {}).get((("status", "400"),), 0)

    before = refused()
    with daemon.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert refused() >= before + 1


def test_only_the_busiest_queues_have_labels_and_no_sum_decreases(watched: Daemon) -> None:
    def put(queue: str, count: int) -> None:
        http.post(f"/q/{queue}", content=b"1\n" * count, headers={"Content-Type": "application/x-ndjson"})

    with watched.client() as http:
        for queue, count in (("a", 50), ("b", 40), ("c", 2), ("d", 1)):
            put(queue, count)
        published = scrape(http)["restmq_messages_published_total"]
        assert {dict(labels)["queue"]: value for labels, value in published.items()} == {"a": 50, "b": 40, "": 3}
        for _ in range(2):  # c becomes the busiest, and a and b do nothing
            put("c", 500)
            samples = scrape(http)
        published = {
            dict(labels)["queue"]: value for labels, value in samples["restmq_messages_published_total"].items()
        }
        assert published["c"] == 1002
        assert set(published) == {"c", "a", ""}
        assert published[""] >= 3
        put("b", 5)
        put("d", 1)
        later = scrape(http)["restmq_messages_published_total"][(("queue", ""),)]
        assert later == published[""] + 6
        held = scrape(http)["restmq_messages"]
        ready = sum(value for labels, value in held.items() if dict(labels)["state"] == "ready")
        assert ready == 50 + 45 + 1002 + 2
        assert of(scrape(http), "restmq_queues") == 4


def test_ten_thousand_queues_cost_a_bounded_number_of_calls(watched: Daemon, private_redis: Redis) -> None:
    names = [f"many-{number}" for number in range(10_000)]
    private_redis.commands([("SADD", "QUEUESET", *names)])
    private_redis.commands([("MSET", *(part for name in names for part in (f"{name}:UUID", "3")))])

    def calls() -> int:
        stats = private_redis.command("INFO", "commandstats")
        called = {name: int(count) for name, count in re.findall(r"cmdstat_(\w+):calls=(\d+)", stats)}
        return sum(called.get(name, 0) for name in ("evalsha", "eval", "sscan", "scard", "ping"))

    with watched.client() as http:
        before = calls()
        samples = scrape(http)
        assert calls() - before <= 120
        assert of(samples, "restmq_queues") == 10_000
        # A reading ends after two seconds, and the next goes on there.
        wait_until(lambda: sum(scrape(http)["restmq_messages_published_total"].values()) == 30_000)
        assert len(samples["restmq_messages_published_total"]) == 3


def test_a_queue_that_no_longer_exists_has_no_metrics(watched: Daemon, private_redis: Redis) -> None:
    with watched.client() as http:
        http.post("/q/here", data={"value": "x"})
        assert (("queue", "here"),) in scrape(http)["restmq_messages_published_total"]
        private_redis.command("FLUSHALL")
        scrape(http)
        assert "restmq_messages_published_total" not in scrape(http)


def test_without_redis_the_metrics_say_so_and_readiness_fails(watched: Daemon, private_redis: Redis) -> None:
    with watched.client() as http:
        assert of(scrape(http), "restmq_redis_up") == 1
        assert of(scrape(http), "restmq_redis_ping_seconds") >= 0
        assert http.get("/readyz").status_code == 200
        private_redis.kill()
        wait_until(lambda: http.get("/readyz").status_code == 503)
        answer = http.get("/readyz")
        assert answer.json().keys() == {"error"}
        assert int(answer.headers["Retry-After"]) >= 1
        assert http.head("/readyz").status_code == 503
        samples = scrape(http)
        assert of(samples, "restmq_redis_up") == 0
        assert "restmq_redis_ping_seconds" not in samples
        assert "restmq_messages" not in samples
        assert http.get("/healthz").json() == {"status": "up"}
        assert http.head("/healthz").status_code == 200
        private_redis.start()
        wait_until(lambda: http.get("/readyz").status_code == 200)
        assert of(scrape(http), "restmq_redis_up") == 1


def test_metrics_need_the_access_of_statistics_and_health_checks_need_none(
    private_folder: Path, private_redis: Redis
) -> None:
    rules = private_folder / "acl.conf"
    rules.write_text("[rest:consumer]\nusername = alice\npassword = secret\n")
    daemon = Daemon(private_folder / "daemon", "--acl", str(rules), redis=private_redis)
    for token, record in {
        "all": '{"queues": ["*"], "privs": ["read"]}',
        "one": '{"queues": ["jobs-*"], "privs": ["read"]}',
        "writer": '{"queues": ["*"], "privs": ["write"]}',
    }.items():
        private_redis.command("SET", f"AUTHKEY:{token}", record)
    with stopping(daemon), daemon.client() as http:
        assert http.get("/metrics").status_code == 401
        assert http.get("/metrics", auth=("alice", "secret")).status_code == 200
        statuses = {
            token: http.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code
            for token in ("all", "one", "writer", "unknown")
        }
        assert statuses == {"all": 200, "one": 403, "writer": 403, "unknown": 401}
        assert http.get("/healthz").status_code == http.get("/readyz").status_code == 200
        assert private_redis.socket_path not in http.get("/readyz").text
