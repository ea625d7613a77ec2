"""The alert rules, in a real Prometheus that scrapes a real server: what they are for makes them fire."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.sentinels import SentinelSet
from tests.servers import ROOT, START_SECONDS, Comet, Daemon, Redis, free_port, listeners, stopping, wait_until

RULES = ROOT / "docs" / "grafana" / "alerts.yml"

pytestmark = pytest.mark.needs("promtool", "prometheus")


class Prometheus:
    """A Prometheus with the rules, which scrapes one server five times a second."""

    def __init__(self, folder: Path, daemon: Daemon) -> None:
        folder.mkdir()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        job = {"job_name": "restmq", "static_configs": [{"targets": [f"127.0.0.1:{daemon.port}"]}]}
        often = {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"}
        configuration = {"global": often, "rule_files": [str(RULES)], "scrape_configs": [job]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                 f"--web.listen-address=127.0.0.1:{port}"],
                stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(lambda: self.value("restmq_redis_up") == 1, START_SECONDS, "Prometheus scrapes the server")

    def value(self, expression: str) -> float | None:
        try:
            answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, trust_env=False)
        except httpx.TransportError:
            return None
        found = answer.json()["data"]["result"] if answer.status_code == 200 else []
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[str]:
        alerts = httpx.get(f"{self.url}/api/v1/alerts", trust_env=False).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(START_SECONDS)


@pytest.fixture
def daemon(private_folder: Path, private_redis: Redis) -> Iterator[Daemon]:
    with stopping(Daemon(private_folder / "daemon", redis=private_redis)) as server:
        yield server


@pytest.fixture
def prometheus(private_folder: Path, daemon: Daemon) -> Iterator[Prometheus]:
    with stopping(Prometheus(private_folder / "prometheus", daemon)) as server:
        yield server


def test_promtool_accepts_the_rules() -> None:
    checked = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


#: For the alerts that wait for minutes: series with a value a minute, in promtool's notation ("0+60x10" is 0, 60, ...,
#: 600), and the minute at which the alert, and no other, is firing.
SLOW_ALERTS: dict[str, tuple[dict[str, str], int]] = {
    "RestMQDown": ({'up{job="restmq"}': "1 0x9"}, 5),
    "RestMQStoreDown": ({"restmq_redis_up": "1 0x9"}, 5),
    "RestMQStoreSlow": ({"restmq_redis_ping_seconds": "0.4x20"}, 10),
    "RestMQBacklogOld": ({'restmq_oldest_message_age_seconds{queue="jobs"}': "600+60x30"}, 20),
    "RestMQBacklogGrows": ({'restmq_messages{queue="jobs",state="ready"}': "1001+10x60"}, 50),
    "RestMQNobodyListens": (
        {
            'restmq_messages{queue="jobs",state="ready"}': "3x20",
            'restmq_oldest_message_age_seconds{queue="jobs"}': "100+60x10",
            'restmq_messages_delivered_total{queue="jobs"}': "7x20",
            'restmq_consumers{queue="jobs",transport="sse"}': "0x20",
            'restmq_waiters{queue="jobs"}': "0x20",
        },
        10,
    ),
    "RestMQQueueStopped": ({'restmq_queue_started{queue="jobs"}': "0x90"}, 70),
    "RestMQErrors": ({'restmq_http_request_duration_seconds_count{status="503"}': "0+60x20"}, 15),
    "RestMQSlow": (
        {
            f'restmq_http_request_duration_seconds_bucket{{route="/q/{{queue}}",method="POST",le="{bound}"}}': values
            for bound, values in {"0.1": "0+98x30", "0.25": "0+100x30", "+Inf": "0+100x30"}.items()
        },
        20,
    ),
    "RestMQDescriptorsRunOut": (
        {'process_open_fds{job="restmq"}': "850x20", 'process_max_fds{job="restmq"}': "1000x20"},
        10,
    ),
}


@pytest.mark.parametrize("alert", SLOW_ALERTS)
def test_an_alert_that_waits_for_minutes_fires_after_them(tmp_path: Path, alert: str) -> None:
    series, minute = SLOW_ALERTS[alert]
    firing = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{minute}m",
        "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}],
    }
    at_first = {"expr": firing["expr"], "eval_time": "0m", "exp_samples": []}
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [at_first, firing],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": [case]}))
    checked = subprocess.run(["promtool", "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_is_tested() -> None:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    text = Path(__file__).read_text()
    assert [rule["alert"] for rule in group["rules"] if f'"{rule["alert"]}"' not in text] == []


def test_alerts_fire_for_dead_letters_refused_writes_and_lost_subscriptions(
    daemon: Daemon, private_redis: Redis, prometheus: Prometheus
) -> None:
    with daemon.client() as http, daemon.connect() as comet:
        http.post("/p/jobs", data={"max_deliveries": "1"})
        http.post("/q/jobs", data={"value": "dig"})
        comet.sendall(b"GET /c/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: listeners(private_redis, "live"))
        wait_until(lambda: prometheus.value('restmq_messages{queue="jobs",state="ready"}') == 1)
        assert prometheus.firing() == set()

        leased = http.get("/q/jobs?lease=60").json()
        http.post("/m/jobs:1", data={"receipt": leased["receipt"], "lease": "0"})
        wait_until(lambda: "RestMQDeadLetters" in prometheus.firing())

        private_redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        wait_until(lambda: "RestMQSubscriptionsLost" in prometheus.firing())

        private_redis.command("CONFIG", "SET", "maxmemory", "1")
        assert http.post("/q/jobs", data={"value": "no room"}).status_code == 503
        private_redis.command("CONFIG", "SET", "maxmemory", "0")
        wait_until(lambda: "RestMQWritesRefused" in prometheus.firing())


def test_alerts_fire_for_consumers_that_miss_messages_and_for_those_that_read_nothing(
    private_folder: Path, private_redis: Redis
) -> None:
    daemon = Daemon(private_folder / "daemon", "--max-unsent", "100000", "--stall-timeout", "1", redis=private_redis)
    prometheus = Prometheus(private_folder / "prometheus", daemon)
    with stopping(daemon, prometheus), daemon.client() as http:
        http.post("/p/live", data={"history": "1"})
        assert prometheus.firing() == set()

        comet = Comet(daemon, "/c/live")
        for number in range(3):
            http.post("/q/live", data={"value": str(number)})
        comet.lines(3)
        comet.close()
        again = Comet(daemon, "/c/live?last_event_id=live:1")
        assert b'"gap"' in again.lines(1)[0]
        again.close()
        wait_until(lambda: "RestMQGapsTold" in prometheus.firing())

        with daemon.connect() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.sendall(b"GET /c/big HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_until(lambda: listeners(private_redis, "big"))
            while "was dropped" not in daemon.log:
                http.post("/q/big", data={"value": "x" * 100_000})
        wait_until(lambda: "RestMQConsumersDropped" in prometheus.firing())


def test_an_alert_fires_when_another_redis_becomes_the_primary(private_folder: Path) -> None:
    redis_set = SentinelSet(private_folder / "set")
    daemon = Daemon(private_folder / "daemon", "--redis-sentinel", redis_set.addresses)
    prometheus = Prometheus(private_folder / "prometheus", daemon)
    with stopping(daemon, redis_set, prometheus):
        assert prometheus.firing() == set()
        redis_set.failover()
        wait_until(lambda: "RestMQFailover" in prometheus.firing(), 60)
