"""``twistd collectd`` with a real collectd and live consumers."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import Comet, Daemon, Redis, listeners, refusal, stopping, twistd, wait_until

CONFIGURATION = """
Hostname "front"
FQDNLookup false
BaseDir "{folder}"
PIDFile "{folder}/collectd.pid"
TypesDB "/usr/share/collectd/types.db"
Interval 3600
LoadPlugin logfile
LoadPlugin unixsock
LoadPlugin write_http
LoadPlugin exec
<Plugin logfile>
    File "{folder}/collectd.log"
</Plugin>
<Plugin unixsock>
    SocketFile "{folder}/collectd.sock"
</Plugin>
<Plugin write_http>
    <Node "values">
        URL "{url}/collectd/data"
        Format "{format}"
        LogHttpError true
    </Node>
    <Node "notifications">
        URL "{url}/collectd/event"
        Format "JSON"
        Metrics false
        Notifications {json_notifications}
        LogHttpError true
    </Node>
</Plugin>
<Plugin exec>
    NotificationExec "{user}" "/usr/bin/curl" "--silent" "--data-binary" "@-" "{url}/collectd/event"
</Plugin>
"""


class Collectd:
    """A real collectd that sends only the values and notifications of the test."""

    def __init__(self, folder: Path, url: str, format: str, json_notifications: bool = False) -> None:
        folder.mkdir()
        # The exec plugin runs no program as root.
        user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        (folder / "collectd.conf").write_text(
            CONFIGURATION.format(
                folder=folder, url=url, format=format, user=user, json_notifications=str(json_notifications).lower()
            )
        )
        self.folder = folder
        self.process = subprocess.Popen(
            ["collectd", "-f", "-C", str(folder / "collectd.conf")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        wait_until(self._is_up, why="collectd starts")

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[0]
        return self.log.count("Initialization complete") == 1 and (self.folder / "collectd.sock").exists()

    @property
    def log(self) -> str:
        path = self.folder / "collectd.log"
        return path.read_text() if path.exists() else ""

    def do(self, line: str) -> str:
        """Sends a command of collectd-unixsock(5), and returns the first line of the answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(self.folder / "collectd.sock"))
            connection.sendall(line.encode() + b"\n")
            answer = connection.makefile().readline()
        assert answer.startswith("0 "), (line, answer)
        return answer

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=20)


@pytest.fixture(scope="module")
def daemon(module_folder: Path, redis: Redis) -> Iterator[Daemon]:
    with stopping(Daemon(module_folder / "collectd-daemon", redis=redis, plugin="collectd")) as server:
        yield server


@pytest.fixture
def own_daemon(private_folder: Path, private_redis: Redis) -> Iterator[Daemon]:
    """A daemon with queues that no other test uses."""
    with stopping(Daemon(private_folder / "daemon", redis=private_redis, plugin="collectd")) as server:
        yield server


def heard(comet: Comet, collectd: Collectd) -> Any:
    """The next message. FLUSH is repeated until it arrives, because collectd passes values on in threads of its own."""
    with ThreadPoolExecutor(1) as pool:
        line = pool.submit(comet.lines, 1)
        wait_until(lambda: collectd.do("FLUSH") and line.done(), why="a message comes")
    return json.loads(json.loads(line.result()[0])["value"])


def values_heard(comet: Comet, collectd: Collectd, count: int) -> dict[str, dict[str, Any]]:
    """A number of values by their hosts, from one message or several."""
    found: dict[str, dict[str, Any]] = {}
    while len(found) < count:
        found |= {item["host"]: item for item in heard(comet, collectd)}
    return found


def listening(daemon: Daemon, redis: Redis, queue: str) -> Comet:
    comet = Comet(daemon, f"/c/{queue}")
    wait_until(lambda: listeners(redis, queue))
    return comet


@pytest.mark.needs("collectd", "curl")
def test_values_in_the_format_command(private_folder: Path, own_daemon: Daemon, private_redis: Redis) -> None:
    comet = listening(own_daemon, private_redis, "collectd_data")
    with stopping(Collectd(private_folder / "collectd", own_daemon.url, "Command")) as collectd:
        collectd.do('PUTVAL "my \\"own\\" host/exec-a b/gauge-x y" interval=10 1251533299:42.5')
        collectd.do("PUTVAL web/df-root/df_complex-free interval=2.5 1251533300:U")
        items = values_heard(comet, collectd, 2)
    assert items['my "own" host'] == {
        "host": 'my "own" host',
        "plugin_instance": "exec-a b",
        "type_instance": "gauge-x y",
        "interval": "10.000",
        "value": "1251533299.000:42.5",
    }
    assert items["web"]["value"] == "1251533300.000:nan"
    assert "HTTP" not in collectd.log


@pytest.mark.needs("collectd", "curl")
def test_values_in_the_format_json(private_folder: Path, own_daemon: Daemon, private_redis: Redis) -> None:
    comet = listening(own_daemon, private_redis, "collectd_data")
    with stopping(Collectd(private_folder / "collectd", own_daemon.url, "JSON")) as collectd:
        collectd.do('PUTVAL "my host/exec-a b/gauge-x y" interval=10 1251533299:42.5')
        collectd.do("PUTVAL web/df-root/df_complex-free interval=2.5 1251533300:U")
        items = values_heard(comet, collectd, 2)
    mine = items["my host"]
    assert (mine["plugin"], mine["plugin_instance"], mine["type_instance"]) == ("exec", "a b", "x y")
    assert (mine["values"], mine["time"], mine["interval"]) == ([42.5], 1251533299.0, 10.0)
    assert items["web"]["values"] == [None]
    assert "HTTP" not in collectd.log


NOTIFICATION = (
    'PUTNOTIF severity=warning time=1251533299 host="my host" plugin=df plugin_instance=root '
    'type=df_complex message="The disk is \\"nearly\\" full: 99 %"'
)


@pytest.mark.needs("collectd", "curl")
def test_notifications_of_the_exec_plugin(private_folder: Path, own_daemon: Daemon, private_redis: Redis) -> None:
    comet = listening(own_daemon, private_redis, "collectd_event")
    with stopping(Collectd(private_folder / "collectd", own_daemon.url, "Command")) as collectd:
        collectd.do(NOTIFICATION)
        assert heard(comet, collectd) == [
            {"severity": "WARNING"},
            {"time": "1251533299.000"},
            {"host": "my host"},
            {"plugin": "df"},
            {"plugininstance": "root"},
            {"type": "df_complex"},
            {"event_text": 'The disk is "nearly" full: 99 %'},
        ]


@pytest.mark.needs("collectd", "curl")
def test_notifications_of_write_http(private_folder: Path, own_daemon: Daemon, private_redis: Redis) -> None:
    collectd = Collectd(private_folder / "collectd", own_daemon.url, "JSON", json_notifications=True)
    with stopping(collectd), own_daemon.client() as http:
        collectd.do(NOTIFICATION)
        wait_until(lambda: http.get("/stats/collectd_event").json()["len"] == 2)
        events = [json.loads(http.get("/q/collectd_event").json()["value"]) for _ in range(2)]
    (alert,) = next(event for event in events if "labels" in event[0])
    assert (alert["labels"]["instance"], alert["labels"]["severity"]) == ("my host", "WARNING")
    assert alert["annotations"]["summary"] == 'The disk is "nearly" full: 99 %'


VALUES = b"PUTVAL h/p/t interval=10 N:1\r\n"


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", ';charset="UTF-8"', "; charset=iso-8859-1; x=y"])
def test_a_charset_parameter_is_accepted(http: httpx.Client, charset: str) -> None:
    for kind, body in (
        ("text/plain", VALUES),
        ("Application/JSON", b'[{"host":"h","plugin":"p","type":"t","time":1,"values":[1]}]'),
    ):
        answer = http.post("/collectd/data", content=body, headers={"Content-Type": kind + charset})
        assert (answer.status_code, answer.text.split(":")[0]) == (200, "collectd_data")
        assert answer.text.endswith("\r\n")


def test_json_is_kept_byte_for_byte(own_daemon: Daemon) -> None:
    body = b'[ {"host":"h","plugin":"p","type":"t","time":1.50,"values":[1e3, null],"extra":"\\u00e9"} ]\n'
    with own_daemon.client() as http:
        http.post("/collectd/data", content=body, headers={"Content-Type": "application/json"})
        assert http.get("/q/collectd_data").json()["value"] == body.decode()


@pytest.mark.parametrize(
    ("path", "kind", "body", "says"),
    [
        ("data", "text/plain", b"PUTVAL h/p/t N:1\nPUTVAL h/p/t", "line 2 has no values: 'PUTVAL h/p/t'"),
        ("data", "text/plain", b"", "no values"),
        ("data", "application/json", b"[\n", "not valid JSON"),
        ("data", "application/json", b'[{"host":"h"}]', "missing required field `plugin`"),
        ("data", "application/x-www-form-urlencoded", b"value=1", "text/plain"),
        ("event", "text/plain", b"Severity OKAY\n\ntext", "line 1 is not a header such as 'Severity: OKAY'"),
        ("event", "application/json", b"{}", "array"),
    ],
)
def test_invalid_input_is_400_with_its_place_and_nothing_is_queued(
    own_daemon: Daemon, path: str, kind: str, body: bytes, says: str
) -> None:
    with own_daemon.client() as http:
        answer = http.post(f"/collectd/{path}", content=body, headers={"Content-Type": kind})
        assert (answer.status_code, says in answer.json()["error"]) == (400, True), answer.text
        assert http.get("/stats/").json()["count"] == 0


def test_a_notification_posted_as_a_form_by_curl(http: httpx.Client) -> None:
    body = b"Severity: OKAY\n\n" + b"a&" * 2000  # curl -d names a form's content type
    answer = http.post("/collectd/event", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 200


def test_the_other_routes_are_those_of_restmq(http: httpx.Client, queue: str) -> None:
    assert http.post(f"/q/{queue}", data={"value": "x"}).text == f"{queue}:1\r\n"
    assert http.get("/collectd/data").status_code == 405
    assert http.post("/collectd/other", content=b"x").status_code == 404


def test_acl_conf_and_tokens_decide_who_may_write(private_folder: Path, redis: Redis) -> None:
    (private_folder / "acl.conf").write_text("[rest:producer]\nusername = collectd\npassword = secret\n")
    daemon = Daemon(private_folder, redis=redis, plugin="collectd")
    allowed, other = f"token-{private_folder.name}", f"other-{private_folder.name}"
    redis.command("SET", f"AUTHKEY:{allowed}", '{"queues": ["collectd_data"], "privs": ["write"]}')
    redis.command("SET", f"AUTHKEY:{other}", '{"queues": ["data", "collectd_event"], "privs": ["write"]}')
    with stopping(daemon), daemon.client(headers={"Content-Type": "text/plain"}) as http:
        post = lambda **how: http.post("/collectd/data", content=VALUES, **how).status_code  # noqa: E731
        assert post() == 401
        assert post(auth=("collectd", "wrong")) == 401
        assert post(auth=("collectd", "secret")) == 200
        assert post(params={"authkey": allowed}) == 200
        assert post(params={"authkey": other}) == 403


def test_the_number_of_values_in_a_request_is_limited(private_folder: Path, redis: Redis) -> None:
    daemon = Daemon(private_folder, "--max-values", "2", redis=redis, plugin="collectd")
    with stopping(daemon), daemon.client(headers={"Content-Type": "text/plain"}) as http:
        assert http.post("/collectd/data", content=VALUES * 2).status_code == 200
        assert "limit of 2 values" in http.post("/collectd/data", content=VALUES * 3).json()["error"]


def test_help_lists_the_options_and_a_surplus_argument_is_rejected(private_folder: Path) -> None:
    shown = twistd(private_folder, "collectd", "--help").stdout
    for option in ("acl", "redis-host", "port", "listen", "max-values"):
        assert f"--{option}" in shown
    assert "'surplus' is not an option of collectd" in refusal(private_folder, "collectd", "surplus")
