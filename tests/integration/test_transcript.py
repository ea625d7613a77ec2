"""The answers equal those recorded from the first RestMQ, except for intended changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.servers import ROOT, Daemon, Redis, stopping

TRANSCRIPT = ROOT / "tests" / "original-transcript.jsonl"


def comparable(body: str) -> Any:
    """Parses JSON, so that key order and blanks don't count. Replaces the address of Redis."""
    if body.startswith("cb("):
        return ("cb", comparable(body.removeprefix("cb(").removesuffix(");\r\n")))
    try:
        value = json.loads(body)
    except ValueError:
        return body
    if isinstance(value, dict) and "redis" in value:
        value["redis"] = "a Redis"
    for queue in value.get("queues", {}).values() if isinstance(value, dict) else ():
        queue["policy"] = queue["policy"] or "broadcast"  # stats names the policy now
    return value


def test_the_original_transcript_replays(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    exchanges = [json.loads(line) for line in TRANSCRIPT.read_text().splitlines()]
    assert len(exchanges) == 42
    with stopping(daemon), daemon.client() as http:
        for exchange in exchanges:
            asked, expected = exchange["request"], exchange["answer"]
            answer = http.request(asked["method"], asked["path"], data=asked.get("form"))
            where = f"{asked['method']} {asked['path']}"
            if (asked["method"], asked["path"]) == ("GET", "/queue"):
                assert answer.status_code == 200, where  # a help page now, where once a redirect was
                continue
            assert answer.status_code == expected["status"], where
            if where == "POST /q/jp?callback=cb":
                assert answer.text == 'cb("jp:2");\r\n'  # a JSONP string is quoted now
            else:
                wanted = comparable(expected["body"])
                if where == "GET /stats/":
                    wanted["queues"]["j2"]["len"] = 0  # the original still counted the message that "del" had deleted
                found = comparable(answer.text)
                if where == "GET /stats/c1":
                    assert found.items() >= wanted.items(), where  # more fields stand beside
                else:
                    assert found == wanted, where
