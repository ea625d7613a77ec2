"""The alert rules, in a real Prometheus that scrapes a real server: what they are for makes them fire."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.servers import ROOT, START_SECONDS, Daemon, Redis, free_port, listeners, stopping, wait_until

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
