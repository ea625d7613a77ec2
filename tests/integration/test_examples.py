"""The examples do what the comments at their top say, run as a user runs them."""

from __future__ import annotations

import ast
import hashlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.servers import ROOT, Daemon, Redis, listeners, stopping, wait_until

EXAMPLES = ROOT / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def python(name: str, *arguments: str | Path) -> list[str | Path]:
    return [sys.executable, EXAMPLES / name, *arguments]


def run(command: list[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs an example to its end."""
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=ENVIRONMENT, **options)


class Running:
    """An example that runs until it is stopped."""

    def __init__(self, folder: Path, command: list[str | Path]) -> None:
        number = len(list(folder.glob("*.out")))
        self._out, self._err = folder / f"{number}.out", folder / f"{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env=ENVIRONMENT)

    @property
    def said(self) -> list[str]:
        return self._out.read_text().splitlines()

    @property
    def complained(self) -> str:
        return self._err.read_text()

    def end(self, by: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(by)
        return self.process.wait(30)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def put(http: httpx.Client, queue: str, *values: str) -> list[str]:
    return [http.post(f"/q/{queue}", data={"value": value}).raise_for_status().text.strip() for value in values]


# The heads


SCRIPTS = [path for path in sorted(EXAMPLES.rglob("*")) if path.suffix in (".py", ".sh")]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_each_example_runs_and_its_head_says_what_it_shows_and_how(path: Path) -> None:
    text = path.read_text()
    if path.suffix == ".py":
        head = ast.get_docstring(ast.parse(text)) or ""
        shown = run([sys.executable, path, "--help"])
        assert shown.returncode == 0, shown.stderr
        for line in re.findall(rf"^    .*{path.name}.*", head, re.MULTILINE):
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line):
                assert flag in shown.stdout, flag
    else:
        head = re.sub(r"(?m)^# ?", "", text.split("\nset -eu", 1)[0])
    assert os.access(path, os.X_OK)
    assert re.search(rf"^ +.*{path.name}", head, re.MULTILINE), "how it is run"
    assert "\nShows " in head, "what it shows"


def test_the_list_of_examples_is_complete() -> None:
    named = set(re.findall(r"\]\(([^)]+)\)", (EXAMPLES / "README.md").read_text()))
    assert all((EXAMPLES / name).exists() for name in named)
    there = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*") if path.is_file()}
    there = {name for name in there if "__pycache__" not in name and name != "README.md"}
    assert {name for name in named if not name.startswith("../")} == there


# What goes wrong is said in a line


def complaint(done: subprocess.CompletedProcess[str], name: str) -> str:
    """The only line that a failing example prints."""
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{Path(name).stem}: ")
    return line


AWAY = "http://127.0.0.1:1"  # nobody is there


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_xmlrpc.py", ("--url", AWAY, "x")),
        ("test_xmlrpc.py", ("--url", "foo", "x")),
        ("test_xmlrpc.py", ("--file", "/nope")),
        ("test_request.py", ("--url", AWAY)),
        ("test_request.py", ("--url", "foo")),
        ("mapreduce/map.py", ("--url", AWAY, EXAMPLES / "README.md")),
        ("mapreduce/map.py", ("/nope",)),
        ("mapreduce/map_keyfreq.py", ("--url", AWAY, EXAMPLES / "README.md")),
        ("mapreduce/map_keyfreq.py", ("/nope",)),
        ("mapreduce/reduce.py", ("--url", AWAY)),
        ("mapreduce/reduce_keyfreq.py", ("--url", "foo")),
        ("system_monitor/feeder.py", ("--url", AWAY, "load")),
        ("system_monitor/consumer.py", ("--url", "foo")),
        ("test_comet.py", ("--url", "ftp://foo")),
        ("test_comet.py", ("--count", "-1")),
        ("test_comet_curl.py", (f"{AWAY}/c/x", "0")),
        ("test_collectd.py", ("--url", "ftp://foo")),
        ("worker.py", ("--url", "ftp://foo")),
        ("twitter_trends.py", ("--url", "ftp://foo", os.devnull)),
    ],
    ids=str,
)
def test_an_example_that_cannot_work_ends_with_one_line(name: str, arguments: tuple[str | Path, ...]) -> None:
    assert "Traceback" not in complaint(run(python(name, *arguments)), name)


def test_a_missing_file_is_named(daemon: Daemon, queue: str) -> None:
    done = run(python("test_request.py", "--url", daemon.url, "--queue", queue, "/nope"))
    assert "'/nope'" in complaint(done, "test_request.py")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("mapreduce/reduce.py", ()), ("mapreduce/reduce_keyfreq.py", ()), ("system_monitor/feeder.py", ("load",))],
)
def test_a_server_that_stops_midway_is_reported_in_one_line(
    private_folder: Path, private_redis: Redis, queue: str, name: str, arguments: tuple[str, ...]
) -> None:
    daemon = Daemon(private_folder / "d", redis=private_redis)
    command = python(name, "--url", daemon.url, "--queue", queue, *arguments)
    listener = Running(private_folder, command)
    with stopping(daemon, listener):
        heard = f"{queue}.answers" if "feeder" in name else queue
        wait_until(lambda: listeners(private_redis, heard))
        daemon.kill()
        status = listener.process.wait(60)
        complaint(subprocess.CompletedProcess(command, status, "", listener.complained), name)


def test_the_sums_skip_invalid_messages(daemon: Daemon, http: httpx.Client, queue: str) -> None:
    strays = ("no JSON", "[1]", "1", '{"filename": "x", "count": "many"}', '{"counts": {"x": null}}', '{"pieces": []}')
    put(http, queue, *strays, '{"filename": "a", "count": 2}')
    done = run(python("mapreduce/reduce.py", "--url", daemon.url, "--queue", queue, "--files", "1"))
    assert (done.returncode, done.stdout) == (0, "a: 2, total: 2\n")
    assert [line.split(": b'")[0] for line in done.stderr.splitlines()] == ["reduce: skipped an invalid message"] * 6

    put(http, queue, *strays, '{"counts": {"a": 2}}', '{"pieces": 1}')
    done = run(python("mapreduce/reduce_keyfreq.py", "--url", daemon.url, "--queue", queue))
    assert (done.returncode, done.stdout) == (0, "2\ta\n")
    assert [line.split(": b'")[0] for line in done.stderr.splitlines()] == [
        "reduce_keyfreq: skipped an invalid message"
    ] * 6


def test_the_feeder_skips_invalid_answers(daemon: Daemon, http: httpx.Client, queue: str) -> None:
    put(http, f"{queue}.answers", "no JSON", "[1]", "{}", '{"id": []}', '{"id": 1}', '{"id": "another"}')
    arguments = ["--url", daemon.url, "--queue", queue, "--wait", "1", "load"]
    done = run(python("system_monitor/feeder.py", *arguments))
    assert complaint(done, "feeder") == "feeder: 1 answers are missing"


def test_trends_report_that_they_wait_for_an_unreachable_server(private_folder: Path) -> None:
    (private_folder / "posts").write_text('{"subject": "s", "author": "a", "text": "t"}')
    waiting = Running(private_folder, python("twitter_trends.py", "--url", AWAY, private_folder / "posts"))
    with stopping(waiting):
        wait_until(lambda: "Again in" in waiting.complained)


# With what everybody has


@pytest.mark.needs("curl")
def test_the_shell_script_runs_to_its_end_and_leaves_nothing(daemon: Daemon, http: httpx.Client, queue: str) -> None:
    done = run([EXAMPLES / "test_rest.sh", daemon.url, queue])
    assert done.returncode == 0, done.stderr
    assert f'{{"queue":"{queue}","key":"{queue}:1","value":"foobar"}}' in done.stdout
    assert f'{{"key":"{queue}:2","value":"a + b & c","count":0}}' in done.stdout
    stats = http.get(f"/stats/{queue}").json()
    assert (stats["ready"], stats["leased"], stats["totals"]["in"], stats["totals"]["acked"]) == (0, 0, 4, 1)


@pytest.mark.needs("curl")
def test_the_shell_script_takes_a_percent_encoded_queue_name(daemon: Daemon, http: httpx.Client, queue: str) -> None:
    done = run([EXAMPLES / "test_rest.sh", daemon.url, f"{queue}%2F%C3%BC"])
    assert done.returncode == 0, done.stderr
    assert f'"key":"{queue}/ü:1"' in done.stdout
    assert http.get(f"/stats/{queue}%2F%C3%BC").json()["totals"]["acked"] == 1


@pytest.mark.needs("curl")
def test_the_shell_script_stops_at_a_rejected_request(daemon: Daemon) -> None:
    done = run([EXAMPLES / "test_rest.sh", daemon.url, "AUTHKEY"])
    assert done.returncode != 0
    assert "reserved" in done.stdout + done.stderr
    assert "policy" not in done.stdout


def test_the_requests_example_sends_and_gets_text_and_bytes(daemon: Daemon, queue: str, private_folder: Path) -> None:
    picture = private_folder / "photo.jpg"
    picture.write_bytes(bytes(range(256)) * 100)
    done = run(python("test_request.py", "--url", daemon.url, "--queue", queue, picture))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == [
        f"published: {queue}:1",
        f"taken: {{'key': '{queue}:1', 'value': 'el requesto', 'count': 0}}",
        f"bytes: 25600 of {queue}:2 {hashlib.sha256(picture.read_bytes()).hexdigest()}",
    ]
    assert done.stdout.splitlines()[3].startswith("rejected: 400 the field 'ttl'")


def test_the_xmlrpc_example_gets_the_value_that_it_set(daemon: Daemon, queue: str, private_folder: Path) -> None:
    (private_folder / "bytes").write_bytes(b"\x00\xff")
    arguments = ["--url", daemon.url, "--queue", queue, "007", "ü <&>", "--file", private_folder / "bytes"]
    done = run(python("test_xmlrpc.py", *arguments))
    assert done.returncode == 0, done.stderr
    keys = [f"{queue}:{number}" for number in (1, 2, 3)]
    gotten = [f"get {key} {value!r}" for key, value in zip(keys, ("007", "ü <&>", b"\x00\xff"), strict=True)]
    assert done.stdout.splitlines() == [*(f"set {key}" for key in keys), *gotten]


def test_the_xmlrpc_example_reports_a_rejection(daemon: Daemon) -> None:
    done = run(python("test_xmlrpc.py", "--url", daemon.url, "--queue", "AUTHKEY", "x"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "reserved" in done.stderr


# Comet


def test_the_comet_example_prints_messages_and_reconnects(
    private_folder: Path, private_redis: Redis, queue: str
) -> None:
    daemon = Daemon(private_folder / "d", redis=private_redis)
    listener = Running(private_folder, python("test_comet.py", queue, "--url", daemon.url))
    with stopping(daemon, listener), daemon.client() as http:
        wait_until(lambda: listeners(private_redis, queue))
        keys = put(http, queue, "one", "ü")
        wait_until(lambda: listener.said == [f"{keys[0]}\tone", f"{keys[1]}\tü"])
        daemon.stop()
        wait_until(lambda: "Again in" in listener.complained)
        daemon.start()
        wait_until(lambda: listeners(private_redis, queue))
        (key,) = put(http, queue, "later")
        wait_until(lambda: listener.said[2:] == [f"{key}\tlater"])
        assert listener.end() == 0
    assert "Traceback" not in listener.complained


def test_the_comet_example_ends_after_the_requested_number_of_messages(
    daemon: Daemon, http: httpx.Client, queue: str
) -> None:
    put(http, queue, "one", "two", "three")
    done = run(python("test_comet.py", queue, "--url", daemon.url, "--count", "2"))
    assert done.returncode == 0, done.stderr
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == ["one", "two"]


@pytest.mark.parametrize(("policy", "deliveries", "each"), [("broadcast", 1500, "5 to 5"), ("roundrobin", 5, "0 to 1")])
def test_many_connections_share_the_messages_or_all_get_them(
    daemon: Daemon, http: httpx.Client, redis: Redis, queue: str, private_folder: Path, policy: str, deliveries: int,
    each: str,
) -> None:  # fmt: skip
    http.post(f"/p/{queue}", data={"policy": policy})
    arguments = [f"{daemon.url}/c/{queue}", "300", "--deliveries", str(deliveries)]
    with stopping(Running(private_folder, python("test_comet_curl.py", *arguments))) as many:
        wait_until(lambda: "300 connections listen" in many.complained)
        wait_until(lambda: http.get(f"/stats/{queue}").json()["consumers"] == 300)
        put(http, queue, *"abcde")
        assert many.process.wait(60) == 0
        assert many.said == [f"300 connections, 5 messages, {deliveries} deliveries, {each} a connection"]


def test_rejected_connections_are_counted(daemon: Daemon) -> None:
    done = run(python("test_comet_curl.py", f"{daemon.url}/c/AUTHKEY", "3"))
    assert done.returncode == 1
    assert done.stdout == "3 connections, 0 messages, 0 deliveries, 0 to 0 a connection\n"
    assert done.stderr.startswith("3 connections failed: ")
    assert "400" in done.stderr


# collectd


def test_collectd_shows_values_and_notifications(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder / "d", redis=private_redis, plugin="collectd")
    listener = Running(private_folder, python("test_collectd.py", "--url", daemon.url))
    text = {"Content-Type": "text/plain"}
    with stopping(daemon, listener), daemon.client() as http:
        for queue in ("collectd_data", "collectd_event"):
            wait_until(lambda queue=queue: listeners(private_redis, queue))
        putval = "PUTVAL web/load/load interval=10 1251533299:0.1:0.2\nPUTVAL web/df-root/free 1251533300:U"
        http.post("/collectd/data", content=putval, headers=text).raise_for_status()
        wait_until(lambda: listener.said == ["web/load/load 1251533299:0.1:0.2", "web/df-root/free 1251533300:U"])
        item = {"host": "web", "plugin": "cpu", "type": "cpu", "time": 1.5, "values": [7]}
        http.post("/collectd/data", json=[item]).raise_for_status()
        instances = {"plugin": "df", "plugin_instance": "root", "type": "df_complex", "type_instance": "free"}
        http.post("/collectd/data", json=[{**item, **instances}]).raise_for_status()
        wait_until(lambda: listener.said[2:] == ["web/cpu/cpu 1.5:[7]", "web/df-root/df_complex-free 1.5:[7]"])
        event = "Severity: WARNING\nHost: web\n\nfull"
        http.post("/collectd/event", content=event, headers=text).raise_for_status()
        wait_until(lambda: len(listener.said) == 5)
        assert json.loads(listener.said[4]) == {"severity": "WARNING", "host": "web", "event_text": "full"}
        put(http, "collectd_data", "no JSON", "[1]")
        wait_until(lambda: listener.complained.count("test_collectd: skipped ") == 2)
        listener.end()
    assert "Traceback" not in listener.complained


# Trends


class Mastodon:
    """A stub of a Mastodon instance, written after its documentation: trending tags, and posts with them."""

    def __init__(self) -> None:
        self.posts: dict[str, list[tuple[int, str]]] = {}
        self.asked: list[str] = []
        instance = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, found = instance.answer(self.path)
                body = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: str) -> tuple[int, Any]:
        self.asked.append(path)
        parts = urlsplit(path)
        if parts.path == "/api/v1/trends/tags":
            return 200, [{"name": name, "url": f"{self.url}/tags/{name}", "history": []} for name in self.posts]
        asked = parse_qs(parts.query)
        tag = httpx.URL(self.url + path).path.removeprefix("/api/v1/timelines/tag/")
        if tag not in self.posts or not self.posts[tag]:
            return 404, {"error": "Record not found"}
        after, limit = int(asked.get("min_id", ["0"])[0]), int(asked["limit"][0])
        newer = [post for post in self.posts[tag] if post[0] > after]
        page = newer[:limit] if after else newer[-limit:]  # min_id: what follows at once; else the newest
        return 200, [
            {"id": str(number), "content": content, "account": {"acct": f"user{number}@example.org"}}
            for number, content in reversed(page)
        ]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()  # otherwise clients still connect, and wait for a response


@contextmanager
def mastodon() -> Iterator[Mastodon]:
    with stopping(Mastodon()) as instance:
        yield instance


def taken(http: httpx.Client, queue: str) -> list[dict[str, str]]:
    answer = http.get(f"/q/{queue}", params={"count": 1000})
    return [json.loads(message["value"]) for message in answer.json()] if answer.status_code == 200 else []


def test_trends_are_posted_oldest_first_and_once(
    daemon: Daemon, http: httpx.Client, queue: str, private_folder: Path
) -> None:
    seen = private_folder / "seen.json"
    with mastodon() as instance:
        command = python("twitter_trends.py", instance.url, "--url", daemon.url, "--queue", queue, "--seen", seen)
        instance.posts = {"cats": [(n, f"<p>No. {n} &amp; <br>more</p><p>end</p>") for n in (9, 10, 11)]}
        assert run(command).returncode == 0
        assert taken(http, queue) == [
            {"subject": "cats", "author": f"user{n}@example.org", "text": f"No. {n} & \nmore\nend"} for n in (9, 10, 11)
        ]
        instance.posts["cats"] += [(n, str(n)) for n in range(20, 70)]
        instance.posts["Käse"] = [(5, "gut")]
        assert run(command).returncode == 0
        assert [post["text"] for post in taken(http, queue)] == [*map(str, range(20, 60)), "gut"]
        # What was sent, but not noted, is sent again: and queued once.
        before = seen.read_text()
        assert run(command).returncode == 0
        seen.write_text(before)
        assert run(command).returncode == 0
        assert [post["text"] for post in taken(http, queue)] == [*map(str, range(60, 70))]


def test_an_unreadable_trend_is_skipped(daemon: Daemon, http: httpx.Client, queue: str, private_folder: Path) -> None:
    seen = private_folder / "seen.json"
    with mastodon() as instance:
        instance.posts = {"gone": [], "here": [(1, "there")]}
        command = python("twitter_trends.py", instance.url, "--url", daemon.url, "--queue", queue, "--seen", seen)
        done = run(command)
    assert done.returncode == 1
    assert "skipped gone: HTTP Error 404" in done.stderr
    assert [post["text"] for post in taken(http, queue)] == ["there"]
    away = run(command)
    assert away.returncode == 1
    assert away.stderr.startswith("twitter_trends: ")
    assert "Traceback" not in away.stderr


@pytest.mark.parametrize("by", ["name", "standard input"])
def test_trends_are_read_from_a_file(
    daemon: Daemon, http: httpx.Client, queue: str, private_folder: Path, by: str
) -> None:
    posts = [{"subject": "s", "author": "a", "text": text} for text in ("one", "ü\n€")]
    lines = "\n".join([json.dumps(posts[0]), "no JSON", '{"subject": "s"}', "[]", json.dumps(posts[1])])
    (private_folder / "posts.jsonl").write_text(lines)
    source = private_folder / "posts.jsonl" if by == "name" else "-"
    with (private_folder / "posts.jsonl").open() as stdin:
        done = run(python("twitter_trends.py", source, "--url", daemon.url, "--queue", queue), stdin=stdin)
    assert done.returncode == 1
    assert [line.split(":")[1] for line in done.stderr.splitlines()] == [
        f" line {number} is not a post" for number in (2, 3, 4)
    ]
    assert taken(http, queue) == posts


# The worker


def worker(folder: Path, daemon: Daemon, queue: str, *arguments: str) -> Running:
    return Running(folder, python("worker.py", "--url", daemon.url, "--queue", queue, *arguments))


def results(http: httpx.Client, queue: str) -> list[dict[str, Any]]:
    return taken(http, f"{queue}.results")


def test_tasks_are_done_and_an_impossible_task_becomes_a_dead_letter(
    daemon: Daemon, http: httpx.Client, queue: str, private_folder: Path
) -> None:
    put(http, queue, "600851475143", "no number", "97", "1", "12")
    with stopping(worker(private_folder, daemon, queue)) as busy:
        wait_until(lambda: http.get(f"/stats/{queue}").json()["totals"]["acked"] == 3)
        wait_until(lambda: http.get(f"/d/{queue}").json()["dead"] == 2)
        assert {letter["value"] for letter in http.get(f"/d/{queue}").json()["messages"]} == {"no number", "1"}
        assert busy.end(signal.SIGTERM) == 0
    assert results(http, queue) == [
        {"number": 600851475143, "factors": [71, 839, 1471, 6857]},
        {"number": 97, "factors": [97]},
        {"number": 12, "factors": [2, 2, 3]},
    ]
    assert busy.complained.count("no number") == 3  # one line a try
    assert "Traceback" not in busy.complained


def test_another_worker_does_the_task_of_a_killed_one(
    daemon: Daemon, http: httpx.Client, queue: str, private_folder: Path
) -> None:
    (key,) = put(http, queue, "15")
    with stopping(worker(private_folder, daemon, queue, "--lease", "2", "--slow", "600")) as unlucky:
        wait_until(lambda: f"{key} begun, delivery 1 of 3" in unlucky.complained)
        unlucky.end(signal.SIGKILL)
    with stopping(worker(private_folder, daemon, queue)) as lucky:
        wait_until(lambda: f"{key} done" in lucky.complained)
        assert f"{key} begun, delivery 2 of 3" in lucky.complained
        assert lucky.end(signal.SIGTERM) == 0
    assert results(http, queue) == [{"number": 15, "factors": [3, 5]}]


def test_a_lease_is_extended_while_the_task_runs(
    daemon: Daemon, http: httpx.Client, queue: str, private_folder: Path
) -> None:
    (key,) = put(http, queue, "15")
    with stopping(worker(private_folder, daemon, queue, "--lease", "6", "--slow", "600")):
        wait_until(lambda: http.get(f"/m/{key}").json()["state"] == "leased")
        first = http.get(f"/m/{key}").json()["due"]
        wait_until(lambda: http.get(f"/m/{key}").json()["due"] > first)
        found = http.get(f"/m/{key}").json()
        assert (found["state"], found["count"]) == ("leased", 1)


def test_a_stopped_worker_finishes_its_task(
    daemon: Daemon, http: httpx.Client, queue: str, private_folder: Path
) -> None:
    keys = put(http, queue, "15", "21")
    with stopping(worker(private_folder, daemon, queue, "--slow", "2")) as ending:
        wait_until(lambda: f"{keys[0]} begun" in ending.complained)
        assert ending.end(signal.SIGTERM) == 0
    assert results(http, queue) == [{"number": 15, "factors": [3, 5]}]
    assert http.get(f"/m/{keys[1]}").json()["state"] == "ready"
