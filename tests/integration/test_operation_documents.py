"""What the operator's documents name is there: metrics, flags, panels, alerts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.servers import ROOT, Daemon, Redis, stopping

_WORD = r"\b((?:restmq|process|python)_[a-z_]+)\b"


@pytest.fixture
def names(private_folder: Path, private_redis: Redis) -> set[str]:
    """All names that a scrape can have, of families and of samples."""
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        http.post("/q/x", data={"value": "x"})
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


def test_the_table_of_metrics_is_whole_and_true(names: set[str]) -> None:
    text = (ROOT / "docs/operation.md").read_text()
    told = set(re.findall(r"^\| `(restmq_[a-z_]+)` \|", text, re.MULTILINE))
    served = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names if name.startswith("restmq_")}
    assert told == {name for name in served if f"{name}_total" not in served}


def test_every_flag_that_the_page_names_exists() -> None:
    described = subprocess.run(
        [Path(sys.executable).with_name("twistd"), "restmq", "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    ).stdout
    for flag in re.findall(r"`(--[a-z-]+)", (ROOT / "docs/operation.md").read_text()):
        assert flag in described, flag


def test_the_commands_of_the_page_work(http: httpx.Client) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/operation.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert lines
    for line in lines:
        path = re.fullmatch(r"curl http://localhost:8888(/\S*)", line)
        assert path is not None, line
        assert http.get(path[1]).status_code == 200, line
