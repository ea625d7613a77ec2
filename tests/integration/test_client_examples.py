"""The clients in examples/clients publish, work under leases and listen live, each run by its language's own tool."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import ROOT, Daemon, Redis, listeners, stopping, wait_until

CLIENTS = ROOT / "examples" / "clients"
#: Steps that make a program, and the command that runs it.
Tool = Callable[[Path], list[str]]


def node(_folder: Path) -> list[str]:
    return ["node", str(CLIENTS / "restmq.mjs")]


def php(_folder: Path) -> list[str]:
    return ["php", "-d", "display_errors=stderr", str(CLIENTS / "restmq.php")]


def ruby(_folder: Path) -> list[str]:
    return ["ruby", "-w", str(CLIENTS / "restmq.rb")]


def go(folder: Path) -> list[str]:
    program = folder / "restmq"
    env = {**os.environ, "GOCACHE": str(folder / "cache"), "GOPROXY": "off", "GO111MODULE": "off"}
    for command in (["go", "vet"], ["go", "build", "-o", str(program)]):
        subprocess.run([*command, str(CLIENTS / "restmq.go")], env=env, cwd=folder, check=True, timeout=300)
    return [str(program)]


def java(folder: Path) -> list[str]:
    compiler = ["javac", "-Xlint:all", "-Werror", "-d", str(folder), str(CLIENTS / "RestMQ.java")]
    subprocess.run(compiler, check=True, timeout=300)
    return ["java", "-cp", str(folder), "RestMQ"]


TOOLS = [
    pytest.param(tool, id=tool.__name__, marks=pytest.mark.needs(*programs))
    for tool, programs in ((node, ["node"]), (php, ["php"]), (ruby, ["ruby"]), (go, ["go"]), (java, ["java", "javac"]))
]


@pytest.fixture(scope="module", params=TOOLS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    tool: Tool = request.param
    return tool(tmp_path_factory.mktemp("client"))


class Running:
    """A client that runs until it is stopped."""

    def __init__(self, folder: Path, command: list[str], url: str) -> None:
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, "RESTMQ_URL": url})

    @property
    def printed(self) -> list[str]:
        return self._out.read_text().splitlines()

    @property
    def complained(self) -> str:
        return self._err.read_text()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(private_folder: Path) -> Iterator[Callable[[list[str], str], Running]]:
    started: list[Running] = []

    def start_one(command: list[str], url: str) -> Running:
        started.append(Running(private_folder, command, url))
        return started[-1]

    yield start_one
    for each in started:
        each.stop()


def test_a_producer_publishes_its_lines(program: list[str], daemon: Daemon, http: httpx.Client, queue: str) -> None:
    name = f"{queue} ü/😀"
    done = subprocess.run(
        [*program, "produce", name],
        input="one\nzwei ü\n",
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "RESTMQ_URL": daemon.url, "LC_ALL": "C.UTF-8"},
    )
    assert (done.stdout.splitlines(), done.returncode) == ([f"{name}:1", f"{name}:2"], 0), done.stderr
    values = [http.post("/queue", json={"cmd": "take", "queue": name}).json()["value"] for _ in range(2)]
    assert values == ["one", "zwei ü"]


def test_a_worker_extends_leases_acks_its_work_and_gives_reasons(
    program: list[str], daemon: Daemon, http: httpx.Client, queue: str, start: Callable[[list[str], str], Running]
) -> None:
    http.post(f"/p/{queue}", data={"max_deliveries": "1"})
    for job in ("sleep 4", "fail no disk space", "dig"):
        http.post(f"/q/{queue}", data={"value": job})
    worker = start([*program, "work", queue, "3"], daemon.url)
    wait_until(lambda: "done: dig" in worker.printed, 60, worker.complained)
    totals = http.get(f"/stats/{queue}").json()["totals"]
    wait_until(lambda: http.get(f"/stats/{queue}").json()["totals"]["acked"] == 2)
    assert (worker.printed, totals["leased"]) == (["done: sleep 4", "done: dig"], 3), worker.complained
    assert http.get(f"/d/{queue}").json()["messages"][0]["reason"] == "no disk space"

    http.post(f"/q/{queue}", data={"value": "sleep 1"})
    wait_until(lambda: http.get(f"/stats/{queue}").json()["leased"])
    worker.process.send_signal(signal.SIGTERM)  # the current job is done first
    worker.process.wait(30)
    assert worker.printed[-1] == "done: sleep 1"
    assert http.get(f"/stats/{queue}").json()["totals"]["acked"] == 3


def test_a_listener_resumes_after_the_server_was_away(
    program: list[str], private_folder: Path, redis: Redis, http: httpx.Client, queue: str,
    start: Callable[[list[str], str], Running],
) -> None:  # fmt: skip
    http.post(f"/p/{queue}", data={"history": "100"})
    with stopping(Daemon(private_folder, redis=redis)) as mortal:
        listener = start([*program, "listen", queue], mortal.url)
        wait_until(lambda: listeners(redis, queue), 60, listener.complained)
        http.post(f"/q/{queue}", data={"value": "two\nlines"})
        wait_until(lambda: listener.printed == ["two", "lines"], 60, listener.complained)
        mortal.kill()
        http.post(f"/q/{queue}", data={"value": "missed"})
        mortal.start()
        wait_until(lambda: listener.printed[2:] == ["missed"], 60, listener.complained)
