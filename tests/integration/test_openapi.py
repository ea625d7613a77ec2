"""The API's description is complete, valid, and correct for the running server."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from restmq.commands import COMMANDS
from restmq.handlers import pages
from restmq.handlers.declare import UNDECLARED
from restmq.web import ELSEWHERE, ROUTES
from tests.servers import ROOT, Comet, Daemon, Redis, stopping

METHODS = {"get", "head", "post", "put", "delete", "patch", "options"}


def test_it_is_valid_openapi(http: httpx.Client) -> None:
    from openapi_spec_validator import OpenAPIV31SpecValidator  # its import takes 0.3 s, in each of the processes

    answer = http.get("/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(answer.json()).validate()


def test_every_route_and_method_is_described_and_nothing_else(http: httpx.Client) -> None:
    described = {
        (path, method) for path, methods in http.get("/openapi.json").json()["paths"].items() for method in methods
    }
    expected = set()
    for template, handler in ROUTES:
        if template == ELSEWHERE:
            continue
        methods = {method.lower() for method in handler.requires} | {"options"}
        expected |= {(template, method) for method in methods | ({"head"} if "get" in methods else set())}
    assert {each for each in described if each[1] in METHODS} == expected


def test_every_method_declares_itself_but_for_those_of_pages() -> None:
    undeclared = {
        handler for _, handler in ROUTES for operation in handler.operations.values() if operation is UNDECLARED
    }
    assert {handler.__module__ for handler in undeclared} <= {pages.__name__}


def test_every_operation_says_what_it_does_and_what_each_answer_is(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    identifiers = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in METHODS:
                identifiers.append(operation["operationId"])
                assert operation["summary"], (path, method)
                assert any(status.startswith(("1", "2")) for status in operation["responses"]), (path, method)
                for parameter in operation.get("parameters", []):
                    assert parameter["description"], (path, method, parameter)
    assert len(identifiers) == len(set(identifiers))
    named = {command["title"] for command in document["components"]["schemas"]["Command"]["oneOf"]}
    assert named == set(COMMANDS)


def test_what_is_read_was_declared() -> None:
    """No handler reads an undeclared parameter, which the description would not have."""
    for _, handler in ROUTES:
        source = inspect.getsource(inspect.getmodule(handler))  # type: ignore[arg-type]
        if handler.__module__ != pages.__name__:
            assert not re.search(r"self\.(text_)?argument\(|request\.arguments", source), handler


def test_methods_that_are_not_described_are_not_allowed(http: httpx.Client) -> None:
    for path, methods in http.get("/openapi.json").json()["paths"].items():
        for method in METHODS - set(methods):
            answer = http.request(method, re.sub(r"\{\w+\}", "x:1", path))
            assert answer.status_code == 405, (method, path)
            assert {word.lower() for word in answer.headers["Allow"].split(", ")} == METHODS & set(methods)


def test_endless_answers_begin_as_described(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    endless = {path for path, methods in paths.items() if methods.get("get", {}).get("x-endless")}
    assert endless == {
        "/c/{queue}",
        "/sse/{queue}",
        "/tap/{queue}",
        "/listen",
        "/ws/{queue}",
        "/ws/",
        "/dashboard/events",
    }
    for path, headers in (
        ("/c/{queue}", ""),
        ("/c/{queue}?callback=f", ""),
        ("/c/{queue}", "Accept: text/event-stream\r\n"),
        ("/sse/{queue}", ""),
        ("/tap/{queue}", ""),
        ("/tap/{queue}", "Accept: text/event-stream\r\n"),
        ("/listen?queue={queue}", ""),
        ("/listen?queue={queue}", "Accept: text/event-stream\r\n"),
        ("/dashboard/events", ""),
    ):
        stream = Comet(daemon, path.replace("{queue}", queue), headers)
        status, fields = stream.head.decode().lower().split("\r\n", 1)
        media_type = re.search(r"content-type: ([^;\r]+)", fields)
        assert " 200 " in status
        assert media_type is not None
        assert media_type[1] in paths[path.partition("?")[0]]["get"]["responses"]["200"]["content"]
        stream.close()
    assert http.get(f"/c/{queue}?lease=10").status_code == 409
    assert http.get(f"/sse/{queue}?prefetch=0").status_code == 400


def test_the_page_shows_every_operation_and_loads_nothing_from_elsewhere(http: httpx.Client) -> None:
    page = http.get("/api")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert "://" not in page.text
    assert "<script>" not in page.text
    assert "style=" not in page.text
    for methods in http.get("/openapi.json").json()["paths"].values():
        for method in ("get", "post", "delete"):
            if method in methods:
                assert f'id="{methods[method]["operationId"]}"' in page.text
    for asset in re.findall(r'(?:src|href)="\./(static/[^"]+)"', page.text):
        assert http.get(f"/{asset}").status_code == 200, asset


@pytest.mark.needs("schemathesis")
@pytest.mark.parametrize(
    ("rules", "selected"),
    [
        ("", ["--exclude-path-regex", "^/(c/|sse/|tap/|listen|dashboard/events)", "--max-examples", "10"]),
        # Some of the same requests, where a password changes the answer.
        (
            "[rest:producer]\nusername = alice\npassword = secret\n",
            ["--include-method", "POST", "--phases", "coverage"],
        ),
    ],
    ids=["open to all", "with a password for producers"],
)
def test_schemathesis_finds_nothing(
    private_folder: Path, private_redis: Redis, rules: str, selected: list[str]
) -> None:
    """Valid and invalid requests, generated from the description: every status, type and body is as described."""
    acl = private_folder / "acl.conf"
    acl.write_text(rules)
    daemon = Daemon(private_folder / "daemon", "--acl", str(acl), redis=private_redis)
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(ROOT / "tests/api/schemathesis.toml"),
        "run", f"{daemon.url}/openapi.json", "--url", daemon.url, *selected,
        "--generation-deterministic", "--no-color",
    ]  # fmt: skip
    with stopping(daemon):
        run = subprocess.run(
            command,
            cwd=private_folder,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(ROOT / "tests" / "api")},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert int(re.findall(r"(\d+) generated", run.stdout)[0]) > 100
