"""Other servers that do the same, as Debian, PyPI or npm has them: nchan, webdis, beanstalkd and emulators of SQS.

A peer that is not installed is named in the report, with the command that installs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import loads
import pytest
from rig import VALUE, Meter, Missing, Run, Server, percentile

from tests.servers import Redis, free_port, wait_until
from tests.sqs.judges import node_with, python_with

_NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
_NGINX = """
load_module {module};
worker_processes 1; daemon off; error_log stderr error; pid {folder}/nginx.pid; {user}
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 10000000; nchan_max_reserved_memory 256M; client_body_temp_path {folder}/body;
  nchan_message_buffer_length 10000;
  {upstream}
  server {{
    listen 127.0.0.1:{port};
    location ~ /q/(.+)$ {{ nchan_publisher; nchan_channel_id $1; {via} }}
    location ~ /c/(.+)$ {{ nchan_subscriber http-raw-stream; nchan_channel_id $1; {via} }}
    location ~ /sse/(.+)$ {{ nchan_subscriber eventsource; nchan_channel_id $1; {via} }}
    location ~ /ws/(.+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; {via} }}
  }}
}}
"""


@contextlib.contextmanager
def _running(*command: str | Path, port: int, redis: Redis | None = None) -> Iterator[Server]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def accepts() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        wait_until(accepts, 30, f"{command[0]} starts")
        yield Server(f"http://127.0.0.1:{port}", process.pid, [redis] if redis else [])
    finally:
        process.terminate()
        process.wait()


def _program(name: str, packages: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"not installed (apt-get install {packages})")
    return found


@contextlib.contextmanager
def _redis() -> Iterator[tuple[Redis, int]]:
    """A Redis at a port."""
    with tempfile.TemporaryDirectory(prefix="restmq-bench-") as folder:
        port = free_port()
        redis = Redis(Path(folder), "--appendonly", "no", "--port", str(port), "--bind", "127.0.0.1")
        try:
            yield redis, port
        finally:
            redis.stop()


@contextlib.contextmanager
def nchan(*, with_redis: bool = False) -> Iterator[Server]:
    """nginx with nchan. Its paths are RestMQ's.

    Args:
        with_redis: whether messages go through Redis, as RestMQ's do, and not only through nginx's own memory.
    """
    packages = "nginx-light libnginx-mod-nchan"
    program = _program("nginx", packages)
    if not _NCHAN.exists():
        raise Missing(f"not installed (apt-get install {packages})")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="restmq-bench-"))
        port, configuration = free_port(), Path(folder, "nginx.conf")
        user = "user root;" if os.geteuid() == 0 else ""
        redis, upstream, via = None, "", ""
        if with_redis:
            redis, redis_port = stack.enter_context(_redis())
            upstream = f"upstream redis {{ nchan_redis_server redis://127.0.0.1:{redis_port}; }}"
            via = "nchan_redis_pass redis;"
        filled = {"module": _NCHAN, "folder": folder, "port": port, "user": user, "upstream": upstream, "via": via}
        configuration.write_text(_NGINX.format(**filled))
        yield stack.enter_context(_running(program, "-p", folder, "-c", configuration, port=port, redis=redis))


@contextlib.contextmanager
def webdis() -> Iterator[Server]:
    """webdis: Redis commands over HTTP, in C."""
    program = _program("webdis", "webdis")
    with _redis() as (redis, redis_port):
        port = free_port()
        settings = {"redis_host": "127.0.0.1", "redis_port": redis_port, "http_host": "127.0.0.1", "http_port": port}
        settings |= {"threads": 1, "verbosity": 0, "logfile": "/dev/null"}
        configuration = Path(redis.folder, "webdis.json")
        configuration.write_text(json.dumps(settings))
        with _running(program, configuration, port=port, redis=redis) as server:
            yield server


def webdis_push(queue: str) -> loads.Load:
    return loads.Load(f"/LPUSH/{queue}/{VALUE}")


def webdis_pop(queue: str) -> loads.Load:
    return loads.Load(f"/RPOP/{queue}")


@contextlib.contextmanager
def beanstalkd() -> Iterator[Server]:
    port = free_port()
    with _running(_program("beanstalkd", "beanstalkd"), "-l", "127.0.0.1", "-p", str(port), port=port) as server:
        yield server


def beanstalk(server: Server, seconds: float, *, takes: bool, connections: int = 32) -> Run:
    """Puts jobs, or reserves and deletes them, in beanstalkd's own protocol. All connections share this process.

    Args:
        takes: whether jobs are reserved and deleted. Each pair counts as one operation.
    """
    put = f"put 0 0 60 {len(VALUE)}\r\n{VALUE}\r\n".encode()
    first = b"reserve\r\n" if takes else put
    if takes:
        _put_many(server.port, put, int(seconds * 60_000))
    chosen, sent = selectors.DefaultSelector(), {}
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", server.port))
        chosen.register(connection, selectors.EVENT_READ)
        sent[connection] = time.perf_counter()
        connection.sendall(first)
    meter, took_ms, began = Meter(server), [], time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        for key, _ in chosen.select():
            connection: socket.socket = key.fileobj  # type: ignore[no-redef]
            answer = connection.recv(4096)
            if answer.startswith(b"RESERVED"):
                connection.sendall(b"delete %s\r\n" % answer.split(None, 2)[1])
                continue
            assert answer.startswith((b"INSERTED", b"DELETED")), answer
            took_ms.append((now - sent[connection]) * 1000)
            sent[connection] = now
            connection.sendall(first)
    run = meter.stop(Run(len(took_ms), now - began, percentile(took_ms, 0.5), percentile(took_ms, 0.99)))
    for connection in sent:
        connection.close()
    return run


def _put_many(port: int, put: bytes, count: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        answers = connection.makefile("rb")
        for _ in range(0, count, 500):
            connection.sendall(put * 500)
            for _ in range(500):
                assert answers.readline().startswith(b"INSERTED")


def _moto(port: int) -> list[str | Path]:
    packages = ("moto[server]", "boto3", "pytest", "requests", "freezegun", "flaky")
    return [python_with("moto", *packages).with_name("moto_server"), "-p", str(port)]


def _ministack(port: int) -> list[str | Path]:
    return ["env", f"GATEWAY_PORT={port}", python_with("ministack", "ministack").with_name("ministack")]


def _fauxqs(port: int) -> list[str | Path]:
    program = node_with("fauxqs", "fauxqs") / "node_modules" / "fauxqs" / "dist" / "cli.js"
    return ["env", f"FAUXQS_PORT={port}", "FAUXQS_LOGGER=false", "node", program]


@contextlib.contextmanager
def _emulator(command: Callable[[int], list[str | Path]]) -> Iterator[Server]:
    port = free_port()
    try:
        words = command(port)
    except pytest.skip.Exception as reason:
        raise Missing(f"not installed ({reason})") from reason
    with _running(*words, port=port) as server:
        yield server


#: Emulators of SQS, which keep messages in their own memory: how each is started, and the number of messages that its
#: queue has for a second of receiving. moto and MiniStack look at all messages of a queue to receive one, so theirs
#: have few.
EMULATORS = {
    "moto_server": (partial(_emulator, _moto), 60),
    "MiniStack": (partial(_emulator, _ministack), 60),
    "fauxqs": (partial(_emulator, _fauxqs), 30_000),
}
