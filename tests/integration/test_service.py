"""The service as an operator sees it: command line, private store, start and stop."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.boxes.roots import namespaces_are_allowed
from tests.servers import (
    ROOT,
    Comet,
    Daemon,
    Redis,
    command_lines,
    environment,
    free_port,
    listeners,
    refusal,
    stopping,
    twistd,
    wait_until,
)


@pytest.fixture
def data_dir(private_folder: Path) -> Iterator[Path]:
    path = private_folder / "data"
    yield path
    owner = path / "owner.lock"
    if owner.exists():
        wait_until(lambda: not store_pids(path), why="the private store has ended")


def store_pids(data_dir: Path) -> list[int]:
    """The processes that serve a data directory."""
    asked = re.compile(f"unixsocket[ :]{re.escape(str(data_dir))}/")  # the second is what Redis makes of its title
    return [pid for pid, line in command_lines().items() if asked.search(line)]


def embedded(private_folder: Path, data_dir: Path, *more: str) -> Daemon:
    return Daemon(private_folder, "--embedded", "always", "--data-dir", str(data_dir), *more)


def test_twistd_lists_restmq_without_importing_its_modules(private_folder: Path) -> None:
    code = (
        "import sys; from twisted.scripts.twistd import run; sys.argv = ['twistd', '--help']\n"
        "try: run()\nexcept SystemExit: pass\n"
        "ours = ('restmq', 'cyclone', 'autobahn', 'txredisapi')\n"
        "print(sorted(name for name in sys.modules if name.startswith(ours)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        cwd=private_folder,
        capture_output=True,
        text=True,
    )
    assert re.search(r"^\s+restmq\s+A message queue", result.stdout, re.MULTILINE)
    assert result.stdout.count(" restmq ") == 1
    assert result.stdout.splitlines()[-1] == "[]"


def test_help_names_every_option_and_version_is_ours(private_folder: Path) -> None:
    shown = twistd(private_folder, "restmq", "--help").stdout
    for option in (
        "acl",
        "redis-host",
        "redis-port",
        "redis-pool",
        "redis-db",
        "port",
        "listen",
        "version",
        "data-dir",
    ):
        assert f"--{option}" in shown
    assert shown.startswith("Usage: restmq serve [options], or twistd ")
    assert twistd(private_folder, "restmq", "--version").stdout == "RestMQ 2.0.0\n"


def test_a_reader_of_the_help_may_leave_early() -> None:
    command = f"{sys.executable} -m restmq serve --help | true; exit ${{PIPESTATUS[0]}}"
    shown = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--port", "eighty"], "restmq: --port 'eighty': give a whole number from 1 to 65535; see --help."),
        (["--port", "70000"], "1 to 65535"),
        (["--redis-port", "0"], "1 to 65535"),
        (["--redis-pool", "-3"], "1 to 1000"),
        (["--redis-db", "x"], "redis-db"),
        (["--embedded", "perhaps"], "auto, always or never"),
        (["--embedded", "always", "--redis-port", "7000"], "private store"),
        (["--acl", "nowhere.conf"], "does not exist"),
        (["--no-such-option"], "no-such-option"),
        (["surplus"], "surplus"),
        (["--allow-origin", "example.org"], "give an origin"),
        (["--max-body", "0"], "max-body"),
        (["--request-timeout", "-1"], "request-timeout"),
        (["--request-timeout", "soon"], "--request-timeout 'soon': give a number of seconds"),
    ],
)
def test_an_invalid_option_of_restmq_gives_one_line(private_folder: Path, options: list[str], says: str) -> None:
    shown = refusal(private_folder, "restmq", *options)
    assert says in shown
    assert shown.count("\n") == 1
    assert shown.endswith("; see --help.\n")


def test_twist_runs_it_too(private_folder: Path, redis: Redis, queue: str) -> None:
    port = str(free_port())
    twist = [sys.executable, "-m", "twisted", "--log-format=text"]
    process = subprocess.Popen(
        [*twist, "restmq", "--port", port, "--redis-socket", redis.socket_path],
        cwd=private_folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        while "listens on" not in (line := process.stdout.readline()):
            assert line, "it ended"
        assert f"listens on http://127.0.0.1:{port}/." in line
        assert httpx.post(f"http://127.0.0.1:{port}/q/{queue}", data={"value": "x"}, trust_env=False).status_code == 200
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_a_port_in_use_is_reported_in_one_line(private_folder: Path, redis: Redis, daemon: Daemon) -> None:
    shown = refusal(private_folder, "restmq", "--port", str(daemon.port), "--redis-socket", redis.socket_path)
    assert f"can't listen on 127.0.0.1:{daemon.port}" in shown.splitlines()[-1]
    assert shown.rstrip().endswith("Stop the program that uses this port, or choose another port.")


def test_an_invalid_acl_conf_is_rejected_with_file_section_and_line(private_folder: Path) -> None:
    acl = private_folder / "acl.conf"
    acl.write_text("[rest:producer]\n\n[rest:consumer]\nusername = bob\n")
    assert "acl.conf, section [rest:consumer], line 3: a password is missing" in refusal(private_folder, "restmq")


def test_the_private_store_keeps_messages_over_restarts(private_folder: Path, data_dir: Path) -> None:
    daemon = embedded(private_folder, data_dir)
    assert "cannot be used" not in daemon.log, "a store that is being started"
    assert f"its data is in {data_dir}" in daemon.log
    with stopping(daemon):
        with daemon.client() as http:
            assert http.post("/q/kept", data={"value": "still here"}).text == "kept:1\r\n"
        assert daemon.stop() in (0, -signal.SIGTERM)
        wait_until(lambda: not store_pids(data_dir), why="the store ended with its parent")
        daemon.start()
        with daemon.client() as http:
            wait_until(lambda: http.get("/stats/kept").status_code == 200)
            assert http.get("/q/kept").json()["value"] == "still here"


def test_the_private_store_is_started_again_when_it_dies(private_folder: Path, data_dir: Path) -> None:
    daemon = embedded(private_folder, data_dir, "--durable")
    with stopping(daemon), daemon.client() as http:
        http.post("/q/kept", data={"value": "still here"})
        (first,) = store_pids(data_dir)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: first not in store_pids(data_dir) and store_pids(data_dir))
        wait_until(lambda: http.get("/stats/kept").status_code == 200)
        assert http.get("/q/kept").json()["value"] == "still here"
        assert "is started again" in daemon.log


def test_the_private_store_ends_when_its_parent_is_killed(private_folder: Path, data_dir: Path) -> None:
    daemon = embedded(private_folder, data_dir)
    with daemon.client() as http:
        http.post("/q/kept", data={"value": "still here"})
    assert store_pids(data_dir)
    daemon.kill()
    wait_until(lambda: not store_pids(data_dir))
    with stopping(daemon):
        daemon.start()  # at once, on the same directory
        with daemon.client() as http:
            wait_until(lambda: http.get("/stats/kept").status_code == 200)
            assert http.get("/q/kept").json()["value"] == "still here"


def test_only_its_account_can_read_the_private_stores_files(private_folder: Path, data_dir: Path) -> None:
    """Even in a directory that existed before, with files that others could read."""
    umask = os.umask(0o022)
    try:
        (data_dir / "appendonlydir").mkdir(parents=True)
        for name in ("old.rdb", "appendonlydir/old.aof", "theirs.txt"):
            (data_dir / name).touch()
        (data_dir / "link.rdb").symlink_to(data_dir / "theirs.txt")
        daemon = embedded(private_folder, data_dir)
        with stopping(daemon), daemon.client() as http:
            http.post("/q/kept", data={"value": "secret"})
            modes = {
                str(path.relative_to(data_dir)): path.stat().st_mode & 0o077
                for path in data_dir.rglob("*")
                if not path.is_symlink()
            }
    finally:
        os.umask(umask)
    assert {name for name, mode in modes.items() if mode} == {"theirs.txt"}
    assert len([name for name in modes if name.startswith("appendonlydir/")]) > 2
    assert data_dir.stat().st_mode & 0o777 == 0o755


def test_a_data_directory_has_one_owner(private_folder: Path, data_dir: Path) -> None:
    with stopping(embedded(private_folder, data_dir)) as daemon:
        shown = refusal(
            private_folder,
            *("restmq", "--embedded", "always", "--data-dir", str(data_dir), "--port", str(free_port())),
        )
        assert f"in use by another RestMQ (process {daemon.process.pid})" in shown.splitlines()[-1]
        with daemon.client() as http:
            assert http.get("/stats/").status_code == 200


@pytest.mark.parametrize("where", ["/proc/nowhere", "x" * 120])
def test_an_unusable_data_directory_is_reported_in_one_line(private_folder: Path, where: str) -> None:
    shown = refusal(private_folder, "restmq", "--embedded", "always", "--data-dir", where, "--port", str(free_port()))
    assert "--data-dir" in shown.splitlines()[-1]


def test_with_a_redis_flag_no_store_is_started(private_folder: Path, data_dir: Path) -> None:
    options = ("--redis-port", str(free_port()), "--data-dir", str(data_dir))
    with stopping(Daemon(private_folder, *options, starts="waiting for the store")) as daemon:
        assert "requests get 503" in daemon.log
        assert not data_dir.exists()


def test_redis_with_a_password_from_the_environment(private_folder: Path) -> None:
    redis = Redis(private_folder / "r", "--maxclients", "100")
    redis.command("ACL", "SETUSER", "restmq", "on", ">pässword", "~*", "&*", "+@all")
    redis.command("CONFIG", "SET", "requirepass", "pässword")
    daemon = Daemon(private_folder, redis=redis, env={"RESTMQ_REDIS_PASSWORD": "pässword"})
    other = Daemon(private_folder, "--redis-username", "restmq", "--redis-password", "pässword", redis=redis)
    try:
        for server in (daemon, other):
            with server.client() as http:
                assert http.post("/q/x", data={"value": "x"}).status_code == 200
            assert "pässword" not in server.log
            server.stop()
    finally:
        redis.kill()


def test_the_loss_and_return_of_the_store_are_logged_once(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    comet = Comet(daemon, "/c/x")  # a consumer, so that connections beside the pool listen too
    with stopping(daemon):
        wait_until(lambda: listeners(private_redis, "x"))
        private_redis.kill()
        wait_until(lambda: "is lost" in daemon.log)
        private_redis.start()
        wait_until(lambda: listeners(private_redis, "x"))
        wait_until(lambda: "answers again" in daemon.log)
        assert (daemon.log.count("is lost"), daemon.log.count("answers again")) == (1, 1)
        comet.close()


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "two workers"])
def test_a_redis_that_would_drop_messages_causes_one_warning(
    private_folder: Path, private_redis: Redis, options: tuple[str, ...]
) -> None:
    daemon = Daemon(private_folder, *options, redis=private_redis)
    with daemon.client() as http:  # by then it has been answered: it asked on the same connections, before this
        assert http.post("/q/x", data={"value": "x"}).status_code == 200
    daemon.stop()
    assert "maxmemory-policy" not in daemon.log
    private_redis.commands(
        [("CONFIG", "SET", "maxmemory", "100mb"), ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")]
    )
    daemon.start()
    with stopping(daemon):
        wait_until(lambda: "maxmemory-policy allkeys-lru" in daemon.log)
    assert daemon.log.count("maxmemory-policy allkeys-lru") == 1


def test_shutdown_answers_requests_in_progress_and_ends_streams_properly(
    private_folder: Path, private_redis: Redis
) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    comet = Comet(daemon, "/c/end")
    wait_until(lambda: listeners(private_redis, "end"))
    answered: list[str] = []

    def produce() -> None:
        with daemon.client() as http:
            while True:
                try:
                    answer = http.post("/q/load", data={"value": "x"})
                except Exception:  # the server is gone: that is how it ends
                    return
                assert answer.status_code == 200
                answered.append(answer.text.strip())

    producers = [threading.Thread(target=produce) for _ in range(8)]
    for producer in producers:
        producer.start()
    wait_until(lambda: len(answered) > 200)
    assert daemon.stop() in (0, -signal.SIGTERM)
    for producer in producers:
        producer.join()
    assert comet.wait_for_end() == b""
    assert comet.ended
    stored = private_redis.command("LRANGE", "load:queue", "0", "-1")
    assert set(answered) <= set(stored)
    assert len(stored) - len(answered) <= len(producers)  # what was cut between the answer and its reading
    daemon.assert_no_tracebacks()


def test_a_client_disconnected_at_shutdown_finds_the_port_closed(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    has_just_come = daemon.connect()
    comet = Comet(daemon, "/c/end")
    wait_until(lambda: listeners(private_redis, "end"))
    daemon.process.terminate()
    assert comet.wait_for_end() == b""
    with pytest.raises(ConnectionRefusedError):
        daemon.connect()
    has_just_come.sendall(b"GET /c/late HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    answer = has_just_come.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 503 ")
    assert "Retry-After: 1\r\n" in answer
    assert "the server is stopping; try again in a moment." in answer
    assert daemon.process.wait(30) in (0, -signal.SIGTERM)
    daemon.assert_no_tracebacks()


def test_a_second_sigterm_changes_nothing_and_a_second_ctrl_c_ends_it_at_once(
    private_folder: Path, private_redis: Redis
) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    sending = daemon.connect()
    sending.sendall(b"POST /q/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 7\r\n\r\nvalue=")
    asked = daemon.get("/healthz")
    assert asked.recv(1000).startswith(b"HTTP/1.1 200")
    daemon.process.terminate()
    assert asked.recv(1000) == b""
    daemon.process.terminate()
    sending.sendall(b"1")
    assert sending.makefile("rb").read().endswith(b"\r\n\r\nx:1\r\n")
    assert daemon.process.wait(30) in (0, -signal.SIGTERM)
    daemon.assert_no_tracebacks()

    daemon.start()
    sending = daemon.connect()
    sending.sendall(b"POST /q/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 7\r\n\r\nvalue=")
    assert daemon.get("/healthz").recv(1000).startswith(b"HTTP/1.1 200")  # the daemon has read what came before
    daemon.process.send_signal(signal.SIGINT)
    wait_until(lambda: daemon.log.count(f"Port {daemon.port} Closed") == 2)
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.process.wait(30) == -signal.SIGINT
    daemon.assert_no_tracebacks()


START_SCRIPTS = {
    "restmq_server": "RestMQ 2.0.0 listens on http://127.0.0.1:{port}/",
    "collectd_restmq_server": "RestMQ 2.0.0 listens on http://127.0.0.1:{port}/",
    "syslogd_restmq_server": "RestMQ syslogd 2.0.0 listens on tcp://127.0.0.1:{port}, udp://127.0.0.1:{port}",
}


@pytest.mark.parametrize("script", START_SCRIPTS)
def test_a_start_script_runs_from_any_directory(private_folder: Path, redis: Redis, script: str) -> None:
    port = free_port()
    process = subprocess.Popen(
        [ROOT / "start_scripts" / script, "--port", str(port), "--redis-socket", redis.socket_path],
        cwd=private_folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        while START_SCRIPTS[script].format(port=port) not in (line := process.stdout.readline()):
            assert line, "it ended"
    finally:
        process.terminate()
        process.wait()
    assert list(private_folder.iterdir()) == []  # no pid file, no log, nothing


def with_settings(folder: Path, script: str, **settings: str) -> Path:
    """A start script in a checkout of its own, with these settings at its top."""
    root = folder / "root"
    (root / "start_scripts").mkdir(parents=True)
    for name in ("restmq", "twisted", "setup.py", "requirements.txt", ".venv"):
        (root / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "start_scripts" / "environment.sh", root / "start_scripts")
    text = (ROOT / "start_scripts" / script).read_text()
    for name, value in settings.items():
        text, found = re.subn(rf"^{name}= +#", f"{name}={value} #", text, flags=re.MULTILINE)
        assert found == 1, name
    copy = root / "start_scripts" / script
    copy.write_text(text)
    copy.chmod(0o755)
    return copy


@pytest.mark.parametrize("script", START_SCRIPTS)
def test_the_settings_for_a_service_in_a_start_script_are_used(private_folder: Path, redis: Redis, script: str) -> None:
    pid_file, log_file = private_folder / "pid", private_folder / "log"
    settings = {"reactor": "poll", "pid_file": str(pid_file), "log_file": str(log_file), "daemon": "yes"}
    if os.getuid() == 0:
        settings["user"] = "root"
    copy = with_settings(private_folder, script, **settings)
    port = free_port()
    subprocess.run(
        [copy, "--port", str(port), "--redis-socket", redis.socket_path], cwd=private_folder, check=True, timeout=60
    )
    try:
        wait_until(lambda: log_file.exists() and START_SCRIPTS[script].format(port=port) in log_file.read_text())
        assert "PollReactor" in log_file.read_text()
        pid = int(pid_file.read_text())
    finally:
        wait_until(pid_file.exists)
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), why="it ended")


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_a_start_script_runs_from_a_link_to_it(private_folder: Path) -> None:
    link = private_folder / "restmq"
    link.symlink_to(ROOT / "start_scripts" / "restmq_server")
    shown = run(link, "--help")
    assert (shown.returncode, "--redis-host" in shown.stdout) == (0, True), shown.stderr


def test_a_start_script_accepts_an_account_whose_group_has_another_name(private_folder: Path) -> None:
    assert run("id", "-gn", "nobody").stdout != "nobody\n"
    shown = run(with_settings(private_folder, "syslogd_restmq_server", user="nobody"), "--help")
    assert (shown.returncode, "--redis-host" in shown.stdout) == (0, True), shown.stderr


def test_an_unknown_account_is_reported_in_one_line(private_folder: Path) -> None:
    shown = run(with_settings(private_folder, "restmq_server", user="no-such-account"))
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == 'The account "no-such-account" does not exist. Correct user= in restmq_server.\n'


@pytest.mark.skipif(not namespaces_are_allowed(), reason="namespaces can't be made here")
def test_the_account_can_use_the_directory_of_the_private_store(private_folder: Path) -> None:
    script = with_settings(private_folder, "restmq_server", user="nobody")
    commands = f"mount -t tmpfs tmpfs /var/lib; {script} --help >/dev/null; stat -c '%U %a' /var/lib/restmq"
    assert run("unshare", "--mount", "sh", "-ec", commands).stdout == "nobody 700\n"


def test_a_broken_virtual_environment_is_detected(private_folder: Path) -> None:
    root, elsewhere = private_folder / "root", private_folder / "elsewhere"
    (root / "start_scripts").mkdir(parents=True)
    shutil.copy(ROOT / "start_scripts" / "environment.sh", root / "start_scripts")

    def state(checkout: Path) -> str:
        checked = run(
            "bash", "-euc", f". {checkout}/start_scripts/environment.sh; is_whole && echo whole || echo broken"
        )
        assert checked.stderr == ""
        return checked.stdout.strip()

    assert state(root) == "broken"  # there is none
    subprocess.run([sys.executable, "-m", "venv", root / ".venv"], check=True)
    assert state(root) == "whole"
    root.rename(elsewhere)
    assert state(elsewhere) == "broken"
    elsewhere.rename(root)
    (library,) = (root / ".venv" / "lib").iterdir()
    library.rename(library.with_name("python3.10"))  # Python is a newer one now
    assert state(root) == "broken"


def test_the_healthcheck_succeeds_while_the_server_answers_even_if_a_password_is_required(
    private_folder: Path, private_redis: Redis
) -> None:
    rules = private_folder / "acl.conf"
    rules.write_text("[rest:consumer]\nusername = a\npassword = b\n[rest:producer]\nusername = a\npassword = b\n")
    daemon = Daemon(private_folder, "--acl", str(rules), "--redis-timeout", "1", redis=private_redis)
    healthcheck = ROOT / "start_scripts" / "healthcheck.py"
    with stopping(daemon):
        private_redis.pause()
        assert run(sys.executable, healthcheck, daemon.url).returncode == 0
        private_redis.go_on()
    sick = run(sys.executable, healthcheck, daemon.url)
    assert (sick.returncode, sick.stderr.startswith(f"healthcheck: {daemon.url} does not answer: ")) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        ("--listen 0.0.0.0", "http://127.0.0.1:8888"),
        ("--listen 0.0.0.0 --port 9000", "http://127.0.0.1:9000"),
        ("--port=9000 --workers 2", "http://127.0.0.1:9000"),
        ("--redis-port 7000 --endpoint tcp:9000", "http://127.0.0.1:9000"),
        ("--endpoint=ssl:port=8443:privateKey=k.pem", "https://127.0.0.1:8443"),
    ],
)
def test_the_healthcheck_asks_the_port_that_the_container_was_started_with(arguments: str, url: str) -> None:
    found = runpy.run_path(str(ROOT / "start_scripts" / "healthcheck.py"))
    assert found["url_of"]("\0".join(["/usr/bin/tini", "--", "twistd", "restmq", *arguments.split()])) == url


def test_the_maximum_length_of_queue_names_can_be_lowered(private_folder: Path, redis: Redis) -> None:
    daemon = Daemon(private_folder, "--max-queue-name", "8", redis=redis)
    with stopping(daemon), daemon.client() as http:
        assert http.get("/q/12345678").status_code == 204
        refused = http.get("/q/123456789")
        assert (refused.status_code, "8 are allowed" in refused.json()["error"]) == (400, True)
        assert http.post("/queue", json={"cmd": "get", "queue": "123456789"}).status_code == 400


def test_when_redis_hangs_requests_get_503_in_time_and_work_again_when_it_is_back(
    private_folder: Path, private_redis: Redis
) -> None:
    daemon = Daemon(private_folder, "--redis-timeout", "1", redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        http.post("/q/hang", data={"value": "before"})
        private_redis.pause()
        answer = http.get("/q/hang")
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert "Redis" in answer.json()["error"]
        private_redis.go_on()
        wait_until(lambda: http.get("/stats/hang").status_code == 200)
