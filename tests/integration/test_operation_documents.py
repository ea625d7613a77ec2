"""The metrics, flags, panels and alerts in the operator's documents exist."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse

from restmq.server.options import DaemonOptions, Options
from restmq.server.redis_options import RedisOptions
from restmq.store.settings import StoreSettings
from tests.integration.test_documents import blocks
from tests.servers import ROOT, Daemon, Redis, free_port, stopping

_WORD = r"\b((?:restmq|process|python)_[a-z_]+)\b"


@pytest.fixture
def names(private_folder: Path, private_redis: Redis) -> set[str]:
    """All names that a scrape can have, of families and of samples."""
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        http.post("/q/x", data={"value": "x"})
        http.post("/", headers={"X-Amz-Target": "AmazonSQS.Unknown"})
        with daemon.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            connection.recv(100)
        http.get("/metrics")
        families = list(parse(http.get("/metrics").text))
    return {sample.name for family in families for sample in family.samples} | {family.name for family in families}


def expressions() -> dict[str, str]:
    rules = yaml.safe_load((ROOT / "docs/grafana/alerts.yml").read_text())
    found = {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}
    dashboard = json.loads((ROOT / "docs/grafana/restmq.json").read_text())
    for panel in dashboard["panels"]:
        found |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel["targets"]}
    found |= {
        each["name"]: each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"
    }
    return found


def test_every_metric_of_the_dashboard_and_the_alerts_exists(names: set[str]) -> None:
    for title, expression in expressions().items():
        named = set(re.findall(_WORD, expression)) | ({"up"} & set(re.findall(r"\bup\b", expression)))
        assert named, title
        assert named - {"up"} <= names, title
        for opening, closing in ("()", "[]", "{}"):
            assert expression.count(opening) == expression.count(closing), title


def test_every_alert_says_what_to_do() -> None:
    rules = yaml.safe_load((ROOT / "docs/grafana/alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"].keys() == {"summary", "description"}
            assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads((ROOT / "docs/grafana/restmq.json").read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_table_of_metrics_is_complete_and_correct(names: set[str]) -> None:
    text = (ROOT / "docs/operation.md").read_text()
    told = set(re.findall(r"^\| `(restmq_[a-z_]+)` \|", text, re.MULTILINE))
    served = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names if name.startswith("restmq_")}
    assert told == {name for name in served if f"{name}_total" not in served}


def test_the_curl_commands_of_the_operation_page_work(http: httpx.Client) -> None:
    lines = [line for line in "".join(blocks("docs/operation.md")).splitlines() if line.startswith("curl")]
    assert lines
    for line in lines:
        path = re.fullmatch(r"curl http://localhost:8888(/\S*)", line)
        assert path is not None, line
        assert http.get(path[1]).status_code == 200, line


@pytest.mark.needs("redis-cli", "redis-server")
def test_a_backup_can_be_restored(private_folder: Path, private_redis: Redis) -> None:
    save, restore = (block for block in blocks("docs/operation.md") if block.startswith("redis-"))
    private_redis.commands([("SADD", "QUEUESET", "old"), ("SET", "old:1", "kept"), ("LPUSH", "old:queue", "old:1")])
    save = save.replace("/var/lib/restmq/store.sock", private_redis.socket_path)
    subprocess.run(save, shell=True, cwd=private_folder, check=True, capture_output=True, timeout=60)
    port = str(free_port())
    restore = restore.replace("7000", port).replace(" --daemonize yes", " --bind 127.0.0.1").strip()
    with subprocess.Popen(f"exec {restore}", shell=True, cwd=private_folder, stdout=subprocess.DEVNULL) as store:
        daemon = Daemon(private_folder / "d", "--redis-port", port)
        with daemon.client() as http:
            assert http.get("/q/old").json()["value"] == "kept"
        daemon.stop()
        store.terminate()


def test_a_full_redis_rejects_new_messages_and_can_be_emptied(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        for value in ("one", "two", "three"):
            http.post("/q/jobs", data={"value": value})
        leased = http.get("/q/jobs?lease=60").json()
        private_redis.command("CONFIG", "SET", "maxmemory", "1")
        assert private_redis.command("CONFIG", "GET", "maxmemory-policy")[1] == "noeviction"
        assert http.post("/q/jobs", data={"value": "new"}).status_code == 503
        assert http.delete(f"/m/{leased['key']}", params={"receipt": leased["receipt"]}).status_code == 204
        assert http.get("/q/jobs").json()["value"] == "two"
        leased = http.get("/q/jobs?lease=60").json()
        assert http.delete(f"/m/{leased['key']}", params={"receipt": leased["receipt"]}).status_code == 204


# The table of limits


def rows(heading: str, document: str = "docs/operation.md") -> list[list[str]]:
    """The cells of the table under a heading, row by row."""
    section = (ROOT / document).read_text().partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def number(text: str) -> float:
    """The number in a limit's cell, in bytes, seconds or pieces."""
    found = re.fullmatch(r"([\d,.]+)( (?:KiB|MiB|bytes|s))?", text)
    assert found is not None, text
    return float(found[1].replace(",", "")) * {" KiB": 1024, " MiB": 1024**2}.get(found[2], 1)


def test_the_table_of_limits_is_complete_and_correct() -> None:
    told = {row[2].strip("`"): number(row[1]) for row in rows("## Limits")}
    options = Options()
    options.parseOptions([])
    names = [name for kind in (Options, DaemonOptions, RedisOptions) for name, *_ in kind.optParameters]
    limits = {name for name in names if name.startswith("max-") or name.endswith("-timeout")}
    limits |= {"metrics-queues", "min-rate"}
    set_to = {name: options[name] for name in limits} | {"redis-pool": StoreSettings().pool}
    assert told == {f"--{name}": default for name, default in set_to.items()}


# The table of what the log says


def said() -> dict[str, str]:
    """All warnings and errors in the server's code, by text, with the module's name. Placeholders become ``…``."""
    found: dict[str, str] = {}
    for path in (ROOT / "restmq").glob("**/*.py"):
        if path.parent.name == "syslog":  # twistd syslogd has a page of its own
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("log.warn", "log.error")):
                continue
            text = node.args[0]
            assert isinstance(text, ast.Constant), f"{path}:{node.lineno}"
            if text.value != "{why}":  # in Redis' own words
                found[re.sub(r"{\w+}", "…", text.value)] = path.stem
    return found


def test_the_table_of_log_lines_is_complete_and_correct() -> None:
    told = {row[0].strip("`") for row in rows("## The log")}
    assert {text for text in said() if text not in told} == set()
    sources = "".join(path.read_text() for path in (ROOT / "restmq").glob("**/*.py"))
    for text in told - set(said()):  # of those that are no warning
        for part in text.split("…"):
            assert part in sources, text
