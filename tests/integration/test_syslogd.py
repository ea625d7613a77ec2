"""``twistd syslogd`` with real senders: logger, rsyslogd, and sockets that send malformed data."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.servers import Comet, Daemon, Redis, free_port, listeners, refusal, stopping, twistd, wait_until

QUEUE = "syslogd:127.0.0.1"
LINES = 10_000


class Syslogd(Daemon):
    """A spawned ``twistd syslogd`` with several summaries a second in its log."""

    def __init__(self, folder: Path, *options: str, redis: Redis | None = None, **more: Any) -> None:
        super().__init__(folder, "--count-interval", "0.2", *options, redis=redis, plugin="syslogd", **more)

    def udp(self) -> socket.socket:
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.connect(("127.0.0.1", self.port))
        return sender

    def send(self, *pieces: bytes) -> None:
        """Sends these on a connection and closes it, however long the back-pressure lasts."""
        with self.connect() as connection:
            connection.settimeout(None)
            for piece in pieces:
                connection.sendall(piece)


@pytest.fixture
def syslogd(private_folder: Path, private_redis: Redis) -> Iterator[Syslogd]:
    with stopping(Syslogd(private_folder / "syslogd", redis=private_redis)) as server:
        yield server


def all_of(redis: Redis, queue: str = QUEUE) -> list[dict[str, Any]]:
    """The queue's messages in order."""
    keys = redis.command("LRANGE", f"{queue}:queue", "0", "-1")[::-1]
    return [json.loads(value) for value in redis.commands([("GET", key) for key in keys])] if keys else []


def stored(redis: Redis, count: int, queue: str = QUEUE) -> list[dict[str, Any]]:
    """The queue's messages in order, once it has this number of them."""
    wait_until(
        lambda: redis.command("LLEN", f"{queue}:queue") >= count, seconds=60, why=f"there are {count} lines in {queue}"
    )
    found = all_of(redis, queue)
    assert len(found) == count
    return found


def logger(syslogd: Syslogd, *arguments: str) -> None:
    subprocess.run(["logger", "--server", "127.0.0.1", "--port", str(syslogd.port), *arguments], check=True, timeout=20)


def numbered(count: int) -> bytes:
    return b"".join(b"<13>Nov  1 00:12:04 h app[1]: %d\n" % number for number in range(count))


def numbers(messages: list[dict[str, Any]]) -> list[int]:
    return [int(message["message"]) for message in messages]


@pytest.mark.needs("logger")
@pytest.mark.parametrize("transport", [["--tcp"], ["--tcp", "--octet-count"], ["--udp"], ["--udp", "--octet-count"]])
@pytest.mark.parametrize("form", ["--rfc3164", "--rfc5424"])
def test_logger(syslogd: Syslogd, private_redis: Redis, transport: list[str], form: str) -> None:
    new = ["--msgid", "ID7", "--sd-id", "x@1", "--sd-param", r'q="say \"hi\""'] if form == "--rfc5424" else []
    logger(syslogd, *transport, form, *new, "--priority", "mail.err", "--tag", "tägged", "--id=77", "grüße [1]: x")
    (message,) = stored(private_redis, 1)
    assert message["line"].startswith("<19>")
    assert (message["host"], message["facility"], message["severity"]) == ("127.0.0.1", "mail", "err")
    assert (message["app"], message["pid"], message["message"]) == ("tägged", "77", "grüße [1]: x")
    assert {"timestamp", "hostname"} <= set(message)
    if new:
        assert (message["msgid"], message["data"]["x@1"]) == ("ID7", {"q": 'say "hi"'})


RSYSLOGD = """
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{folder}/in.sock" CreatePath="on" RateLimit.Interval="0")
global(workDirectory="{folder}" maxMessageSize="64k")
action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" tcp_framing="{framing}"
    template="{template}" action.resumeRetryCount="-1" action.resumeInterval="1"
    queue.type="LinkedList" queue.size="20000" queue.discardMark="20000" queue.timeoutEnqueue="60000")
"""


class Rsyslogd:
    """A real rsyslogd that forwards the lines it gets on a socket in its folder."""

    def __init__(self, folder: Path, port: int, framing: str, template: str) -> None:
        folder.mkdir()
        self.socket_path = folder / "in.sock"
        configuration = folder / "rsyslog.conf"
        configuration.write_text(RSYSLOGD.format(folder=folder, port=port, framing=framing, template=template))
        self.process = subprocess.Popen(
            ["rsyslogd", "-n", "-f", str(configuration), "-i", str(folder / "pid")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        wait_until(self._is_up, why="rsyslogd starts")

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[0]
        return self.socket_path.exists()

    def log(self, text: str) -> None:
        """Has the real logger send each line of the text."""
        subprocess.run(
            ["logger", "--socket", str(self.socket_path), "--socket-errors=on", "--tag", "ten", "--id=9"],
            input=text.encode(),
            check=True,
            timeout=60,
        )

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)


@pytest.mark.needs("logger", "rsyslogd")
@pytest.mark.parametrize(
    ("framing", "template"),
    [("traditional", "RSYSLOG_TraditionalForwardFormat"), ("octet-counted", "RSYSLOG_SyslogProtocol23Format")],
)
def test_ten_thousand_lines_from_rsyslogd_arrive_in_order(
    private_folder: Path, syslogd: Syslogd, private_redis: Redis, framing: str, template: str
) -> None:
    with stopping(Rsyslogd(private_folder / "rsyslogd", syslogd.port, framing, template)) as rsyslogd:
        rsyslogd.log("\n".join(map(str, range(LINES))))
        ours = ours_of(private_redis)
        wait_until(lambda: len(ours()) >= LINES, seconds=60, why="all lines have come")
    messages = ours()
    assert [int(message["message"]) for message in messages] == list(range(LINES))
    assert {(message["app"], message["pid"], message["facility"]) for message in messages} == {("ten", "9", "user")}


def ours_of(redis: Redis) -> Callable[[], list[dict[str, Any]]]:
    """Reads the messages of our own lines, without those that rsyslogd logs about itself."""

    return lambda: [message for message in all_of(redis) if message.get("app") == "ten"]


def test_a_live_consumer_gets_lines_as_they_arrive(
    private_folder: Path, syslogd: Syslogd, private_redis: Redis
) -> None:
    with stopping(Daemon(private_folder / "restmq", redis=private_redis)) as restmq:
        comet = Comet(restmq, f"/c/{QUEUE}")
        wait_until(lambda: listeners(private_redis, QUEUE))
        syslogd.send(b"<13>live\n")
        (line,) = comet.lines(1)
    assert json.loads(json.loads(line)["value"])["message"] == "live"


def test_while_redis_hangs_a_sender_gets_back_pressure_and_loses_nothing(
    private_folder: Path, private_redis: Redis
) -> None:
    count, padding = 15_000, "x" * 2000  # more than the sockets' buffers hold
    stream = b"".join(b"<13>Nov  1 00:12:04 h app: %d %b\n" % (n, padding.encode()) for n in range(count))
    syslogd = Syslogd(private_folder / "syslogd", "--redis-timeout", "100", redis=private_redis)
    sender = threading.Thread(target=syslogd.send, args=[stream], daemon=True)
    with stopping(syslogd):
        private_redis.pause()
        try:
            sender.start()
            wait_until(lambda: "connections not read: 1," in syslogd.log, why="it is not read")
            assert syslogd.resident_bytes < 150 << 20
            assert sender.is_alive()  # and has the rest
        finally:
            private_redis.go_on()
        wait_until(lambda: f"saved: {count}" in syslogd.log, seconds=200, why="all lines are saved")
        sender.join()
        messages = [message["message"] for message in stored(private_redis, count)]
        assert messages == [f"{number} {padding}" for number in range(count)]


@pytest.mark.needs("logger", "rsyslogd")
def test_rsyslogd_loses_nothing_when_redis_is_killed_and_syslogd_is_restarted(
    private_folder: Path, private_redis: Redis
) -> None:
    syslogd = Syslogd(private_folder / "syslogd", redis=private_redis)
    rsyslogd = Rsyslogd(private_folder / "rsyslogd", syslogd.port, "octet-counted", "RSYSLOG_SyslogProtocol23Format")
    ours = ours_of(private_redis)
    with stopping(rsyslogd, syslogd):
        rsyslogd.log("\n".join(map(str, range(3000))))
        wait_until(lambda: len(ours()) >= 3000, why="the first lines have come")
        private_redis.kill()
        rsyslogd.log("\n".join(map(str, range(3000, 6000))))
        wait_until(lambda: f"lines for {QUEUE} wait: " in syslogd.log, why="syslogd has noticed")
        private_redis.start()
        wait_until(lambda: len(set(numbers(ours()))) >= 6000, seconds=60, why="the lines of Redis' absence have come")
        assert syslogd.stop() in (0, -signal.SIGTERM)
        rsyslogd.log("\n".join(map(str, range(6000, 9000))))
        syslogd.start()
        wait_until(lambda: len(set(numbers(ours()))) >= 9000, seconds=60, why="the lines of the restart have come")
        # At least once: a call that Redis ran, and was killed before it answered, is made again.
        assert list(dict.fromkeys(numbers(ours()))) == list(range(9000))


def test_lines_wait_while_redis_is_away_and_come_in_order(private_folder: Path, private_redis: Redis) -> None:
    syslogd = Syslogd(private_folder / "syslogd", redis=private_redis)
    with stopping(syslogd), syslogd.connect() as connection:
        connection.sendall(numbered(10))
        stored(private_redis, 10)
        private_redis.kill()
        connection.sendall(numbered(20)[len(numbered(10)) :])
        wait_until(lambda: f"lines for {QUEUE} wait: " in syslogd.log and "wait for Redis: 10," in syslogd.log)
        private_redis.start()
        assert numbers(stored(private_redis, 20)) == list(range(20))
        wait_until(lambda: f"Redis accepts lines for {QUEUE} again" in syslogd.log)


def test_the_log_counts_all_lines_that_are_lost_at_the_end(private_folder: Path, private_redis: Redis) -> None:
    syslogd = Syslogd(private_folder / "syslogd", "--drain-timeout", "0.5", redis=private_redis)
    private_redis.kill()
    stream = numbered(2500)
    syslogd.send(stream)
    wait_until(lambda: "wait for Redis: 2000, connections not read: 1," in syslogd.log)
    syslogd.stop()
    assert "dropped (Redis did not accept them before the daemon ended): 2000; wait for Redis: 0" in syslogd.log
    # The bytes that were read before the connection was paused. The others never left the kernel.
    unread_bytes = int(syslogd.log.split("bytes not yet lines: ")[-1].split(".")[0])
    assert 0 < unread_bytes <= len(stream) - len(numbered(2000))
    syslogd.assert_no_tracebacks()


def test_all_lines_sent_before_the_stop_are_saved(private_folder: Path, private_redis: Redis) -> None:
    syslogd = Syslogd(private_folder / "syslogd", redis=private_redis)
    private_redis.pause()
    try:
        syslogd.send(numbered(5000))
        wait_until(lambda: "wait for Redis: 2000," in syslogd.log)
        syslogd.process.terminate()
    finally:
        private_redis.go_on()
    assert syslogd.process.wait(30) in (0, -signal.SIGTERM)
    assert numbers(stored(private_redis, 5000)) == list(range(5000))
    syslogd.assert_no_tracebacks()


def test_an_unusable_queue_does_not_stop_other_senders(syslogd: Syslogd, private_redis: Redis) -> None:
    private_redis.command("SET", f"{QUEUE}:queue", "no list")
    syslogd.send(b"<13>waits\n")
    wait_until(lambda: f"lines for {QUEUE} wait: " in syslogd.log)
    with socket.socket() as other:
        other.bind(("127.0.0.2", 0))
        other.connect(("127.0.0.1", syslogd.port))
        other.sendall(b"<13>goes\n")
        assert stored(private_redis, 1, "syslogd:127.0.0.2")[0]["message"] == "goes"
    private_redis.command("DEL", f"{QUEUE}:queue")
    assert stored(private_redis, 1)[0]["message"] == "waits"


def test_a_full_queue_stops_only_its_own_host(private_folder: Path, private_redis: Redis) -> None:
    syslogd = Syslogd(private_folder / "syslogd", "--max-buffered-lines", "1000", redis=private_redis)
    restmq = Daemon(private_folder / "restmq", redis=private_redis)
    with stopping(syslogd, restmq), contextlib.ExitStack() as connections, restmq.client() as http:
        http.post(f"/p/{QUEUE}", data={"max_length": 10}).raise_for_status()
        for _ in range(30):
            connections.enter_context(syslogd.connect()).sendall(numbered(100))
        wait_until(lambda: "wait for Redis: 500, connections not read: 30," in syslogd.log)
        with socket.socket() as other:
            other.bind(("127.0.0.2", 0))
            other.connect(("127.0.0.1", syslogd.port))
            other.sendall(numbered(2000))
            assert numbers(stored(private_redis, 2000, "syslogd:127.0.0.2")) == list(range(2000))
        http.post(f"/p/{QUEUE}", data={"max_length": 0}).raise_for_status()
        stored(private_redis, 3000)
        wait_until(lambda: f"Redis accepts lines for {QUEUE} again" in syslogd.log)
        assert syslogd.log.count(f"lines for {QUEUE} wait: ") == 1


def probes_due_ms(port: int) -> list[int]:
    """Milliseconds until the kernel probes each sender that is connected to this port (proc(5))."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, _, timer, *_ = line.split()
        kind, due = timer.split(":")
        if local.endswith(f":{port:04X}") and not remote.endswith(":0000") and kind == "02":
            found.append(int(due, 16) * 1000 // os.sysconf("SC_CLK_TCK"))
    return found


@pytest.mark.needs("openssl")
def test_a_silent_sender_is_probed_within_a_minute(private_folder: Path, private_redis: Redis) -> None:
    certificate, key = Authority(private_folder).issue("localhost")
    for kind in ("tcp:{}:interface=127.0.0.1", f"ssl:{{}}:interface=127.0.0.1:privateKey={key}:certKey={certificate}"):
        port = free_port()
        options = ("--endpoint", kind.format(port), "--no-udp")
        syslogd = Syslogd(private_folder / kind[:3], *options, redis=private_redis)
        with stopping(syslogd), socket.create_connection(("127.0.0.1", port)):
            (due_ms,) = wait_until(lambda port=port: probes_due_ms(port))
            assert 0 < due_ms <= 60_000


# Malformed data

ODD = [
    b"\n\n\r\n \t\n\0\n",  # blank
    b"<\n<>\n<13\n<13>\n<999>x\n<-1>x\n< 13>x\n<13><14>x\n",
    b'<13>1\n<13>1 \n<13>1 - - - - - [\n<13>1 - - - - - [x y="\n<13>2 - - - - - -\n',
    b"0 <13>x\n-5 <13>x\n+5 <13>x\n5<13>x\n5  <13>x\n00005 <13>x\n5 x<13>\n",
    bytes(range(256)) * 20 + b"\n",
    b"\xff\xfe<\x001\x003\x00>\x00\n\xc3\n\xed\xa0\x80\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",  # the start of TLS
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"99999999999999999999 <13>x\n",
    b"[" * 5000 + b"\n" + b'<13>1 - - - - - [a b="' + b"\\" * 5000 + b"\n",
]


@pytest.mark.parametrize("odd", ODD)
def test_malformed_and_binary_lines_harm_no_other_line(syslogd: Syslogd, private_redis: Redis, odd: bytes) -> None:
    with syslogd.connect() as same, syslogd.udp() as datagrams:
        same.sendall(odd + b"<13>after\n")
        datagrams.send(odd)
        datagrams.send(b"<13>datagram\n")
        syslogd.send(odd)
        syslogd.send(b"<13>other\n")
        whole = [line for line in odd.split(b"\n") if line.strip(b" \t\r\v\f\0")]
        count = 2 * len(whole) + bool(whole) + 3
        lines = [message["line"] for message in stored(private_redis, count)]
    for good in ("<13>after", "<13>datagram", "<13>other"):
        assert lines.count(good) == 1


@pytest.mark.parametrize("begin", [b"", b"<13>", b"99999999 <13>"])
def test_an_endless_line_takes_no_memory_and_is_kept_truncated(
    private_folder: Path, private_redis: Redis, begin: bytes
) -> None:
    syslogd = Syslogd(private_folder / "syslogd", "--max-line", "1000", redis=private_redis)
    with stopping(syslogd), syslogd.connect() as connection:
        before_bytes = syslogd.resident_bytes
        connection.sendall(begin)
        for _ in range(60):
            connection.sendall(b"x" * (1 << 20))
        syslogd.send(b"<13>meanwhile\n")
        wait_until(lambda: private_redis.command("LLEN", f"{QUEUE}:queue") == 2)
        assert syslogd.resident_bytes - before_bytes < 20 << 20
        if b"<13>" not in begin[1:]:  # the counted frame is not over
            connection.sendall(b"\n<13>next\n")
            last = stored(private_redis, 3)[2]
            assert last["message"] == "next"
        cut, _ = stored(private_redis, 3 if b"<13>" not in begin[1:] else 2)[:2]
        assert (len(cut["line"]), cut["truncated"]) == (1000, True)
        wait_until(lambda: "truncated: 1" in syslogd.log)


def test_incomplete_lines(syslogd: Syslogd, private_redis: Redis) -> None:
    for number, half in enumerate((b"<13>half a line", b"30 <13>half a frame", b"12"), 1):
        syslogd.send(half)
        stored(private_redis, number)
    messages = stored(private_redis, 3)
    assert [(message["line"], message.get("truncated")) for message in messages] == [
        ("<13>half a line", None),
        ("<13>half a frame", True),
        ("12", None),
    ]
    with syslogd.connect() as connection:
        for byte in b"<13>byte by byte\n18 <13>byte by byte\n2":
            connection.sendall(bytes([byte]))
        assert [message["message"] for message in stored(private_redis, 5)[3:]] == ["byte by byte", "byte by byte\n2"]


def test_connection_resets_harm_no_other_sender(syslogd: Syslogd, private_redis: Redis) -> None:
    for _ in range(50):
        connection = syslogd.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.send(b"<13>half")
        connection.close()  # by a reset
    syslogd.send(b"<13>whole\n")
    wait_until(lambda: any(message["line"] == "<13>whole" for message in all_of(private_redis)))


# Options


def closed_by_server(connection: socket.socket) -> bool:
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


def test_connections_are_limited(private_folder: Path, private_redis: Redis) -> None:
    syslogd = Syslogd(private_folder / "syslogd", "--max-connections", "2", redis=private_redis)
    with stopping(syslogd), syslogd.connect() as one, syslogd.connect() as two:
        one.sendall(b"<13>one\n")
        two.sendall(b"<13>two\n")
        stored(private_redis, 2)
        with contextlib.suppress(ConnectionResetError), syslogd.connect() as three:
            assert closed_by_server(three)
        wait_until(lambda: "connections rejected (too many connections): 1" in syslogd.log)


def test_only_the_senders_option_decides_who_may_send(private_folder: Path, private_redis: Redis) -> None:
    syslogd = Syslogd(private_folder / "syslogd", "--senders", "127.0.0.2/32 ::1", redis=private_redis)
    with stopping(syslogd), socket.socket() as allowed, syslogd.udp() as datagrams:
        with contextlib.suppress(ConnectionResetError), syslogd.connect() as rejected:
            assert closed_by_server(rejected)
        datagrams.send(b"<13>x")
        wait_until(lambda: "dropped (UDP: sender not among --senders): 1" in syslogd.log)
        allowed.bind(("127.0.0.2", 0))
        allowed.connect(("127.0.0.1", syslogd.port))
        allowed.sendall(b"<13>allowed\n")
        stored(private_redis, 1, "syslogd:127.0.0.2")
    assert "connections rejected (sender not among --senders): 1" in syslogd.log
    assert private_redis.command("LLEN", f"{QUEUE}:queue") == 0


def test_ipv6_and_no_udp(private_folder: Path, private_redis: Redis) -> None:
    with stopping(Syslogd(private_folder / "syslogd", "--listen", "::1", "--no-udp", redis=private_redis)) as syslogd:
        assert f"listens on tcp://[::1]:{syslogd.port}. " in syslogd.log
        with socket.create_connection(("::1", syslogd.port)) as connection:
            connection.sendall(b"<13>six\n")
        assert stored(private_redis, 1, "syslogd:::1")[0]["host"] == "::1"


@pytest.mark.needs("openssl")
def test_tls_and_a_unix_socket_as_endpoints(private_folder: Path, private_redis: Redis) -> None:
    path = private_folder / "syslog.sock"
    authority = Authority(private_folder)
    certificate, key = authority.issue("localhost")
    port = free_port()
    syslogd = Syslogd(
        private_folder / "syslogd",
        *("--endpoint", f"ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={certificate}"),
        *("--endpoint", f"unix:{path}", "--no-udp"),
        redis=private_redis,
    )
    context = ssl.create_default_context(cafile=str(authority.path))
    with stopping(syslogd):
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(b"".join(b"%d <13>%d" % (4 + len(str(n)), n) for n in range(3000)))  # RFC 5425, 4.3
            assert numbers(stored(private_redis, 3000)) == list(range(3000))
        with socket.socket(socket.AF_UNIX) as local:
            local.connect(str(path))
            local.sendall(b"<13>local\n")
        assert stored(private_redis, 1, "syslogd:unix")[0]["host"] == "unix"


def test_the_private_store_of_a_restmq_is_found(private_folder: Path) -> None:
    data_dir = private_folder / "data"
    restmq = Daemon(private_folder / "restmq", "--embedded", "always", "--data-dir", str(data_dir))
    syslogd = Syslogd(private_folder / "syslogd", "--data-dir", str(data_dir))
    with stopping(restmq, syslogd), restmq.client() as http:
        assert f"the private store in {data_dir}" in syslogd.log
        syslogd.send(b"<13>x\n")
        wait_until(lambda: http.get(f"/stats/{QUEUE}").json()["len"] == 1)
        assert json.loads(http.get(f"/q/{QUEUE}").json()["value"])["message"] == "x"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--port", "0"], "1 to 65535"),
        (["--max-line", "10"], "480"),
        (["--max-buffered-lines", "0"], "max-buffered-lines"),
        (["--hold-time", "-1"], "hold-time"),
        (["--senders", "nobody"], "senders"),
        (["surplus"], "'surplus' is not an option of syslogd"),
    ],
)
def test_an_invalid_option_gives_one_line(private_folder: Path, options: list[str], says: str) -> None:
    shown = refusal(private_folder, "syslogd", *options)
    assert says in shown
    assert shown.count("\n") == 1
    assert shown.endswith("; see --help.\n")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_in_use_gives_one_line(private_folder: Path, redis: Redis, kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        shown = refusal(private_folder, "syslogd", "--port", str(port), "--redis-socket", redis.socket_path)
    assert f"can't listen on 127.0.0.1:{port}" in shown.splitlines()[-1]


def test_help_lists_the_options(private_folder: Path) -> None:
    shown = twistd(private_folder, "syslogd", "--help").stdout
    for option in ("redis-host", "port", "listen", "endpoint", "senders", "max-line", "max-connections", "no-udp"):
        assert f"--{option}" in shown
    assert "25000" in shown
