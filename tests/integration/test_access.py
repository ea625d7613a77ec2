"""Access control: acl.conf, tokens, browsers, proxies."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import socket
import ssl
import xmlrpc.client
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from restmq.auth.acl import SECTIONS
from restmq.auth.guard import BY_COMMAND, BY_FIELD, OPEN
from restmq.auth.passwords import hash_password
from restmq.web import ROUTES
from tests.certificates import Authority
from tests.servers import WEBSOCKET, Comet, Daemon, Redis, curl, free_port, listeners, refusal, stopping, wait_until


def with_acl(folder: Path, redis: Redis, rules: str, *options: str) -> Daemon:
    (folder / "acl.conf").write_text(rules)
    return Daemon(folder, "--acl", str(folder / "acl.conf"), *options, redis=redis)


PASSWORDS = """
[rest:producer]
username = paul
password = Pr0d%:ü
[rest:consumer]
username = carla
password = consume
[comet:consumer]
username = carla
password = comet
[websocket:consumer]
username = carla
password = socket
"""

#: Requests by the section that guards them.
GUARDED = [
    ("rest:consumer", "GET", "/q/x", None),
    ("rest:consumer", "HEAD", "/q/x", None),
    ("rest:consumer", "GET", "/?queue=x", None),
    ("rest:consumer", "GET", "/take?queue=x&queue=y", None),
    ("rest:consumer", "HEAD", "/take?queue=x&queue=y", None),
    ("rest:consumer", "HEAD", "/?queue=x", None),
    ("rest:consumer", "GET", "/q/x?callback=f", None),
    ("rest:consumer", "GET", "/q/", None),
    ("rest:consumer", "DELETE", "/q/x", None),
    ("rest:consumer", "GET", "/j/x", None),
    ("rest:consumer", "GET", "/stats/", None),
    ("rest:consumer", "GET", "/stats/x", None),
    ("rest:consumer", "GET", "/p/x", None),
    ("rest:consumer", "GET", "/control/", None),
    ("rest:consumer", "GET", "/control/x", None),
    ("rest:consumer", "GET", "/dashboard/events", None),
    ("rest:consumer", "GET", "/dashboard/samples", None),
    ("rest:consumer", "GET", "/dashboard/samples/x", None),
    ("rest:consumer", "GET", "/dashboard/consumers/x", None),
    ("rest:consumer", "GET", "/dashboard/sqs/x", None),
    ("rest:consumer", "GET", "/servers", None),
    ("rest:consumer", "POST", "/queue", {"body": '{"cmd": "get", "queue": "x"}'}),
    ("rest:consumer", "POST", "/queue/x", {"body": '{"cmd": "take"}'}),
    ("rest:consumer", "POST", "/queue", {"body": '{"cmd": "del", "queue": "x", "key": "x:1"}'}),
    ("rest:producer", "POST", "/queue", {"body": '{"cmd": "add", "queue": "x", "value": "v"}'}),
    ("rest:producer", "POST", "/q/x", {"value": "v"}),
    ("rest:producer", "POST", "/", {"queue": "x", "value": "v"}),
    ("rest:producer", "POST", "/p/x", {"policy": "broadcast"}),
    ("rest:producer", "POST", "/control/x", {"status": "start"}),
    ("comet:consumer", "GET", "/c/x", None),
    ("comet:consumer", "GET", "/sse/x", None),
    ("comet:consumer", "GET", "/listen?queue=x&queue=y", None),
]


def test_every_route_declares_its_access() -> None:
    for pattern, handler in ROUTES:
        assert handler.requires, pattern
        for method, access in handler.requires.items():
            assert method in ("GET", "POST", "PUT", "DELETE", "PATCH")
            assert access in (OPEN, BY_COMMAND, BY_FIELD) or access.section in SECTIONS, pattern
            assert hasattr(handler, method.lower()), pattern
    open_routes = {pattern for pattern, handler in ROUTES if OPEN in handler.requires.values()}
    assert open_routes == {
        "/queue", "/queue/{queue}", "/dashboard", "/static/{file}", "/favicon.ico", "/healthz", "/readyz",
        "/openapi.json", "/api", "*",
    }  # fmt: skip


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, redis: Redis):  # type: ignore[no-untyped-def]
    with stopping(with_acl(tmp_path_factory.mktemp("guarded"), redis, PASSWORDS)) as daemon:
        yield daemon


CREDENTIALS = {
    "rest:producer": ("paul", "Pr0d%:ü"),
    "rest:consumer": ("carla", "consume"),
    "comet:consumer": ("carla", "comet"),
}


@pytest.mark.parametrize(("section", "method", "path", "form"), GUARDED)
def test_every_guarded_request_needs_a_password(
    guarded: Daemon, section: str, method: str, path: str, form: dict[str, str] | None
) -> None:
    with guarded.client() as http:
        refused = http.request(method, path, data=form)
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == 'Basic realm="RestMQ Restricted Access"'
        with http.stream(method, path, data=form, auth=CREDENTIALS[section]) as granted:
            assert granted.status_code in (200, 204, 404)


def test_the_root_redirects_to_the_dashboard_without_a_password(guarded: Daemon) -> None:
    with guarded.client() as http:
        for method in ("GET", "HEAD"):
            answer = http.request(method, "/")
            assert (answer.status_code, answer.headers["Location"]) == (302, "dashboard")


def test_xmlrpc_needs_the_password(guarded: Daemon) -> None:
    with xmlrpc.client.ServerProxy(f"{guarded.url}/xmlrpc", allow_none=True) as server:
        for call in (lambda: server.get("x"), lambda: server.set("x", "v")):
            with pytest.raises(xmlrpc.client.ProtocolError) as refused:
                call()
            assert refused.value.errcode == 401
    with xmlrpc.client.ServerProxy(f"http://carla:consume@127.0.0.1:{guarded.port}/xmlrpc", allow_none=True) as server:
        assert server.get("nothing there") is None


def test_wrong_passwords_are_limited_per_address(private_folder: Path, redis: Redis) -> None:
    daemon = with_acl(private_folder, redis, PASSWORDS)
    with stopping(daemon), daemon.client() as http:
        take = {"cmd": "take", "queue": "x", "comment": "v" * 70_000}  # its access is checked twice
        for _ in range(9):
            assert http.post("/queue", json=take, auth=("carla", "guess")).status_code == 401
        assert http.post("/queue", json=take, auth=("carla", "consume")).status_code == 200
        assert http.get("/q/x", auth=("carla", "guess")).status_code == 401
        limited = http.get("/q/x", auth=("carla", "consume"))
        assert limited.status_code == 429
        assert limited.headers["Retry-After"] == "60"
        assert "guess" not in daemon.log


#: What costs much to read, or can't be read at all: who may do nothing learns only that.
LARGE = [
    ("/queue", "application/json", b"[" * 70_000),
    ("/queue/x", "application/json", b"[" * 70_000),
    ("/queue", "application/x-www-form-urlencoded", b"body=" + b"[" * 70_000),
    ("/queue", "multipart/form-data", b"-" * 70_000),
    ("/xmlrpc", "text/xml", b"<a/>" * 20_000),
    ("/", "multipart/form-data", b"-"),
    ("/?authkey=unknown", "multipart/form-data", b"-"),
    ("/q/x?authkey=unknown", "multipart/form-data", b"-"),
]


@pytest.mark.parametrize(("path", "content_type", "body"), LARGE)
def test_a_command_without_any_access_is_not_parsed(
    guarded: Daemon, redis: Redis, path: str, content_type: str, body: bytes
) -> None:
    with guarded.client() as http:
        headers = {"Content-Type": content_type}
        assert http.post(path, content=body, headers=headers).status_code == 401
        writer = {**headers, **token(redis, "t-large", ["*"], ["write"])}
        if "authkey" not in path:
            assert http.post(path, content=body, headers=writer).status_code in (200, 400)


def test_a_large_command_needs_access_first(guarded: Daemon, redis: Redis) -> None:
    add = {"cmd": "add", "queue": "large", "value": "v" * 70_000}
    take = {"cmd": "take", "queue": "large", "comment": "v" * 70_000}
    with guarded.client() as http:
        writer, reader = (token(redis, f"t-large-{may}", ["*"], [may]) for may in ("write", "read"))
        paul, carla = (httpx.BasicAuth(*CREDENTIALS[f"rest:{who}"]) for who in ("producer", "consumer"))
        for command, may, may_not in ((add, paul, carla), (take, carla, paul)):
            assert http.post("/queue", json=command, auth=may).status_code == 200
            assert http.post("/queue", json=command, auth=may_not).status_code == 401
        for command, may_headers, may_not_headers in ((add, writer, reader), (take, reader, writer)):
            assert http.post("/queue", json=command, headers=may_headers).status_code == 200
            assert http.post("/queue", json=command, headers=may_not_headers).status_code == 403


def test_a_token_in_a_form_does_not_count(guarded: Daemon, redis: Redis) -> None:
    token(redis, "t-query", ["form"], ["write"])
    with guarded.client() as http:
        form = {"value": "v", "authkey": "another"}
        assert http.post("/q/form?authkey=t-query", data=form).status_code == 200
        assert http.post("/q/form", data={"value": "v", "authkey": "t-query"}).status_code == 401


def test_guesses_from_many_addresses_delay_nobody(private_folder: Path, redis: Redis) -> None:
    rules = f"[rest:consumer]\nusername = carla\npassword = {hash_password('consume')}\n"
    daemon = with_acl(private_folder, redis, rules, "--trusted-proxies", "127.0.0.1")
    with stopping(daemon), daemon.client() as http:
        assert http.get("/q/none", auth=("carla", "consume")).status_code == 204
        assert http.get("/q/none", auth=("carla", "consumé")).status_code == 401
        guesses = []
        for number in range(200):
            credentials = base64.b64encode(f"carla:guess {number}".encode()).decode()
            guesses.append(daemon.connect())
            guesses[-1].sendall(
                f"GET /q/none HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 198.51.100.{number}\r\n"
                f"Authorization: Basic {credentials}\r\n\r\n".encode()
            )
        assert http.get("/q/none", auth=("carla", "consume")).status_code == 204
        answers = [guess.recv(1000) for guess in guesses]
        assert {answer.split(b" ")[1] for answer in answers} == {b"401", b"503"}
        assert sum(b" 503 " in answer for answer in answers) > 100, "the others would take ten seconds of CPU"
        for guess in guesses:
            guess.close()


def test_a_refused_address_gets_403_until_the_file_changes(private_folder: Path, redis: Redis) -> None:
    daemon = with_acl(private_folder, redis, "[rest:producer]\nhosts_deny = 127.0.0.\n")
    acl = private_folder / "acl.conf"
    with stopping(daemon), daemon.client() as http:
        assert http.post("/q/x", data={"value": "v"}).status_code == 403
        acl.write_text("[rest:producer]\nhosts_allow = 127.0.0.1\n")
        wait_until(lambda: http.post("/q/x", data={"value": "v"}).status_code == 200)
        acl.write_text("[rest:producer]\nhosts_deny = all\nthis is broken\n")
        wait_until(lambda: "The old access rules stay in force" in daemon.log)
        assert http.post("/q/x", data={"value": "v"}).status_code == 200
        acl.write_text("[rest:producer]\nhosts_deny = all\n")
        os.kill(daemon.process.pid, signal.SIGHUP)
        wait_until(lambda: http.post("/q/x", data={"value": "v"}).status_code == 403)


# Tokens


def token(redis: Redis, secret: str, queues: list[str], privs: list[str]) -> dict[str, str]:
    redis.command("SET", f"AUTHKEY:{secret}", json.dumps({"queues": queues, "privs": privs}))
    return {"Authorization": f"Bearer {secret}"}


def test_a_token_gives_access_to_its_queues_only(guarded: Daemon, redis: Redis) -> None:
    with guarded.client() as http:
        mine = token(redis, "t-mine", ["mine", "jobs-*"], ["read", "write"])
        assert http.post("/q/mine", data={"value": "v"}, headers=mine).status_code == 200
        assert http.post("/q/jobs-7", data={"value": "v"}, headers=mine).status_code == 200
        assert http.get("/q/mine?authkey=t-mine").json()["value"] == "v"
        assert http.get("/q/other", headers=mine).status_code == 403
        for method in ("GET", "HEAD", "POST"):
            assert http.request(method, "/?queue=other&value=v", headers=mine).status_code == 403
        assert http.get("/?queue=mine&authkey=t-mine").status_code == 404
        assert http.post("/queue", json={"cmd": "take", "queue": "other"}, headers=mine).status_code == 403
        assert http.delete("/q/mine", headers=mine).status_code == 403  # needs admin
        assert http.post("/p/mine", data={"policy": "broadcast"}, headers=mine).status_code == 403
        assert set(http.get("/stats/", headers=mine).json()["queues"]) <= {"mine", "jobs-7"}
        assert http.get("/q/mine", headers={"Authorization": "Bearer unknown"}).status_code == 401
    assert "t-mine" not in guarded.log


def test_a_token_has_the_privileges_of_its_record(guarded: Daemon, redis: Redis) -> None:
    with guarded.client() as http:
        reader = token(redis, "t-r", ["*"], ["read"])
        writer = token(redis, "t-w", ["*"], ["write"])
        seeds_own = token(redis, "t-s", ["old"], ["create"])
        admin = token(redis, "t-a", ["*"], ["read", "write", "admin"])
        assert http.post("/q/priv", data={"value": "v"}, headers=reader).status_code == 403
        assert http.post("/q/priv", data={"value": "v"}, headers=writer).status_code == 200
        assert http.get("/q/priv", headers=writer).status_code == 403
        assert http.get("/q/priv", headers=reader).status_code == 200
        assert http.post("/q/old", data={"value": "v"}, headers=seeds_own).status_code == 200
        assert http.get("/q/old", headers=seeds_own).status_code == 200
        assert http.delete("/q/priv", headers=admin).status_code == 200
        redis.command("SET", "AUTHKEY:broken", "{not json")
        assert http.get("/q/priv", headers={"Authorization": "Bearer broken"}).status_code == 401


def test_a_token_sets_only_dead_letter_queues_it_may_write_to(guarded: Daemon, redis: Redis) -> None:
    with guarded.client() as http:
        mine = token(redis, "t-dead", ["mine", "mine-dead"], ["read", "write", "admin"])
        refused = http.post("/p/mine", data={"dead_letter": "other", "max_deliveries": "1"}, headers=mine)
        assert (refused.status_code, refused.json()) == (403, {"error": "the token is not for this queue."})
        assert http.get("/p/mine", headers=mine).json() == {"queue": "mine", "value": "broadcast"}
        assert http.post("/p/mine", data={"dead_letter": "mine-dead"}, headers=mine).status_code == 200
        assert http.post("/p/mine", data={"dead_letter": ""}, headers=mine).status_code == 200
        reads = token(redis, "t-reads", ["*"], ["read", "admin"])
        assert http.post("/p/mine", data={"dead_letter": "other"}, headers=reads).status_code == 403


def test_a_token_redrives_only_into_queues_it_may_write_to(guarded: Daemon, redis: Redis) -> None:
    with guarded.client() as http:
        mine = token(redis, "t-redrive", ["mine", "mine-2"], ["read", "write", "admin"])
        reads = token(redis, "t-redrive-reads", ["*"], ["read", "admin"])
        writes = token(redis, "t-redrive-writes", ["*"], ["read", "write"])
        for to, headers, status in (("other", mine, 403), ("mine-2", mine, 200), ("mine-2", reads, 403)):
            assert http.post("/d/mine", data={"to": to}, headers=headers).status_code == status
            command = {"cmd": "redrive", "queue": "mine", "to": to}
            assert http.post("/queue", json=command, headers=headers).status_code == status
        assert http.post("/d/mine", headers=writes).status_code == 403
        assert http.post("/queue", json={"cmd": "redrive", "queue": "mine"}, headers=writes).status_code == 403


def test_revoking_a_token_disconnects_its_listeners(guarded: Daemon, redis: Redis, queue: str) -> None:
    """On each transport the stream ends properly. Other consumers stay connected."""
    token(redis, "t-gone", [queue], ["read"])
    token(redis, "t-stays", [queue], ["read"])
    gone = [Comet(guarded, f"/{way}/{queue}?authkey=t-gone") for way in ("c", "sse")]
    stays = Comet(guarded, f"/c/{queue}?authkey=t-stays")

    async def conversation() -> None:
        async with connect(f"ws://127.0.0.1:{guarded.port}/ws/{queue}?authkey=t-gone") as websocket:
            await asyncio.to_thread(revoke)
            with pytest.raises(ConnectionClosed):
                await websocket.recv()
            assert (websocket.close_code, websocket.close_reason) == (1008, "listening here is no longer allowed")

    def revoke() -> None:
        wait_until(lambda: listeners(redis, queue))
        redis.command("DEL", "AUTHKEY:t-gone")

    asyncio.run(asyncio.wait_for(conversation(), 40))
    for stream in gone:
        stream.wait_for_end()
        assert stream.ended
    redis.command("PUBLISH", f"{queue}:PUBSUB", f"message {queue}:1\nheard")
    assert b"heard" in stays.lines(1)[0]
    stays.close()


def test_changed_rules_disconnect_listeners_they_no_longer_admit(
    private_folder: Path, redis: Redis, queue: str
) -> None:
    with stopping(with_acl(private_folder, redis, "")) as daemon:
        streams = [Comet(daemon, f"/{way}/{queue}") for way in ("c", "sse")]
        (private_folder / "acl.conf").write_text("[comet:consumer]\nusername = carla\npassword = comet\n")
        for stream in streams:
            stream.wait_for_end()
            assert stream.ended


# Browsers


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Referer": "http://evil.example/page"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1"},
    ],
)
def test_cross_site_requests_are_refused(
    daemon: Daemon, http: httpx.Client, redis: Redis, queue: str, headers: dict[str, str]
) -> None:
    http.post(f"/q/{queue}", data={"value": "mine"})
    for method, path in [
        ("GET", f"/q/{queue}"),
        ("GET", f"/q/{queue}?callback=f"),
        ("POST", f"/q/{queue}"),
        ("DELETE", f"/q/{queue}"),
        ("GET", f"/c/{queue}"),
        ("GET", f"/ws/{queue}"),
        ("OPTIONS", f"/q/{queue}"),
    ]:
        refused = http.request(method, path, headers=headers, data={"value": "evil"} if method == "POST" else None)
        assert refused.status_code == 403, (method, path)
        assert "Access-Control-Allow-Origin" not in refused.headers
    assert redis.command("LLEN", f"{queue}:queue") == 1


LINKED = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Accept": "text/html,*/*;q=0.8"}


@pytest.mark.parametrize("said", [LINKED, {"Referer": "http://wiki.example/", "Accept": LINKED["Accept"]}])
def test_a_link_on_another_site_opens_pages_and_takes_no_message(
    http: httpx.Client, redis: Redis, queue: str, said: dict[str, str]
) -> None:
    http.post(f"/q/{queue}", data={"value": "mine"})
    for path in ("/", "/dashboard", "/queue", "/api"):
        assert http.get(path, headers=said).status_code in (200, 302), path
    for path in (f"/q/{queue}", f"/?queue={queue}", f"/c/{queue}", f"/j/{queue}", "/queue?callback=f"):
        assert http.get(path, headers=said).status_code == 403, path
    assert http.get("/dashboard", headers={**said, "Accept": "*/*"}).status_code == 403
    assert http.post("/", data={"queue": queue, "value": "evil"}, headers=said).status_code == 403
    assert redis.command("LLEN", f"{queue}:queue") == 1


def test_jsonp_needs_a_referrer_or_a_program(http: httpx.Client, redis: Redis, queue: str, daemon: Daemon) -> None:
    browser = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36"}
    http.post(f"/q/{queue}", data={"value": "mine"})
    for path in (f"/q/{queue}?callback=f", f"/q/{queue}?c%61llback=f", f"/c/{queue}?callback=f"):
        assert http.get(path, headers=browser).status_code == 403
    assert redis.command("LLEN", f"{queue}:queue") == 1
    assert http.get(f"/q/{queue}", headers=browser).json()["value"] == "mine"
    for said in ({**browser, "Referer": f"{daemon.url}/page"}, {**browser, "Sec-Fetch-Site": "none"}, {}):
        assert http.get(f"/q/{queue}?callback=f", headers=said).text == 'f({"error":"empty queue"});\r\n'


def test_our_own_pages_may_send_requests(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    own = {"Origin": daemon.url, "Sec-Fetch-Site": "same-origin"}
    assert http.post(f"/q/{queue}", data={"value": "v"}, headers=own).status_code == 200


def test_an_allowed_origin_gets_cors_headers_also_on_errors(private_folder: Path, redis: Redis) -> None:
    daemon = Daemon(private_folder, "--allow-origin", "https://app.example", redis=redis)
    app = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    with stopping(daemon), daemon.client() as http:
        preflight = http.options("/q/x", headers={**app, "Access-Control-Request-Method": "DELETE"})
        assert preflight.status_code == 204
        assert "DELETE" in preflight.headers["Access-Control-Allow-Methods"]
        allowed = set(preflight.headers["Access-Control-Allow-Headers"].split(", "))
        described = http.get("/openapi.json").text
        assert allowed >= set(re.findall(r'"name":"([^"]+)","in":"header"', described))
        assert allowed >= {"Authorization", "Cache-Control", "Content-Encoding", "Content-Type", "X-Request-Id"}
        kept = http.options("/q/x", headers={**app, "Access-Control-Request-Headers": "traceparent,x-message-a"})
        assert kept.headers["Access-Control-Allow-Headers"].endswith(", X-Request-Id, traceparent,x-message-a")
        for answer in (http.get("/q/none-there", headers=app), http.post("/q/x", headers=app), preflight):
            assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
            assert answer.headers["Access-Control-Allow-Credentials"] == "true"
            assert answer.headers["Vary"] == "Origin"
        for other in ({}, {"Origin": "https://other.example"}, {"Origin": daemon.url}):
            assert not [name for name in http.get("/healthz", headers=other).headers if name.startswith("access-")]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "[2001:db8::1]"])
def test_an_unknown_host_name_gets_421(http: httpx.Client, host: str) -> None:
    assert http.get("/stats/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8888", "127.0.0.1:9", "[::1]:8888", "127.1.2.3", "x.localhost"]
)
def test_loopback_names_are_accepted(http: httpx.Client, host: str) -> None:
    assert http.get("/stats/", headers={"Host": host}).status_code == 200


def test_an_allowed_host_is_accepted(private_folder: Path, redis: Redis) -> None:
    daemon = Daemon(private_folder, "--allow-host", "queue.internal", redis=redis)
    with stopping(daemon), daemon.client() as http:
        assert http.get("/stats/", headers={"Host": "Queue.Internal:80"}).status_code == 200
        assert http.get("/stats/", headers={"Host": "other.internal"}).status_code == 421


@pytest.mark.needs("curl")
def test_with_allow_host_no_other_name_is_accepted_on_any_address(
    private_folder: Path, redis: Redis, queue: str
) -> None:
    unix = private_folder / "http.sock"
    named = ["--allow-host", "queue.internal"]
    anywhere = Daemon(private_folder / "anywhere", "--listen", "0.0.0.0", *named, redis=redis)
    port = free_port()
    endpoints = [f"tcp:{port}:interface=127.0.0.1", f"unix:{unix}"]
    by_endpoint = Daemon(
        private_folder / "endpoint", *(f"--endpoint={each}" for each in endpoints), *named, redis=redis
    )
    with stopping(anywhere, by_endpoint):
        for where in ([f"{anywhere.url}/"], [f"http://127.0.0.1:{port}/"], ["--unix-socket", str(unix), "http://x/"]):
            for host, status in (("queue.internal", b"200"), ("localhost", b"200"), ("evil.example", b"421")):
                asked = [*where[:-1], f"{where[-1]}stats/", "-H", f"Host: {host}", "-o", "/dev/null"]
                assert curl(*asked, "-w", "%{http_code}") == status, (where, host)


def test_without_allow_host_names_are_checked_on_loopback_only(private_folder: Path, redis: Redis) -> None:
    port = free_port()
    loopback = Daemon(private_folder / "l", "--endpoint", f"tcp6:{port}:interface=\\:\\:1", redis=redis)
    anywhere = Daemon(private_folder / "a", "--listen", "0.0.0.0", redis=redis)
    rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
    with stopping(loopback, anywhere):
        assert httpx.get(f"http://[::1]:{port}/stats/", headers=rebound, trust_env=False).status_code == 421
        assert httpx.get(f"{anywhere.url}/stats/", headers=rebound, trust_env=False).status_code == 200


def test_rules_that_come_while_the_server_runs_are_applied(private_folder: Path, redis: Redis) -> None:
    daemon = Daemon(private_folder, redis=redis)
    with stopping(daemon), daemon.client() as http:
        assert http.get("/stats/").status_code == 200
        os.kill(daemon.process.pid, signal.SIGHUP)  # there is nothing to read yet
        new = private_folder / "new"
        new.write_text("[rest:consumer]\nusername = ann\npassword = secret\n")
        new.rename(private_folder / "acl.conf")
        wait_until(lambda: http.get("/stats/").status_code == 401)
        assert http.get("/stats/", auth=("ann", "secret")).status_code == 200
        assert "cannot be read" not in daemon.log


def test_a_server_that_everyone_may_use_says_so_in_its_log(private_folder: Path, redis: Redis) -> None:
    some = "[rest:producer]\nusername = ann\npassword = secret\n[comet:consumer]\nhosts_allow = 10.0.0.0/8\n"
    whole = "".join(f"[{section}]\nhosts_deny = 10.0.0.0/8\n" for section in SECTIONS)
    for name, listen, rules, sections in (
        ("open", "0.0.0.0", "", "[rest:producer], [rest:consumer], [comet:consumer], [websocket:consumer]"),
        ("half", "0.0.0.0", some, "[rest:consumer], [websocket:consumer]"),
        ("closed", "0.0.0.0", whole, ""),
        ("loopback", "127.0.0.1", "", ""),
    ):
        (private_folder / name).mkdir()
        acl = private_folder / name / "rules"
        acl.write_text(rules)
        daemon = Daemon(private_folder / name / "daemon", "--listen", listen, "--acl", str(acl), redis=redis)
        with stopping(daemon):
            said = r"everyone who reaches \S+ is let in: acl.conf restricts nobody in (.+)\. Set"
            warned = re.findall(said, daemon.log)
            assert warned == [sections] * bool(sections), (name, daemon.log)


# Proxies


def test_forwarded_addresses_count_from_trusted_proxies_only(private_folder: Path, redis: Redis) -> None:
    rules = "[rest:consumer]\nhosts_allow = 10.1.0.0/16\n"
    trusting = with_acl(private_folder, redis, rules, "--trusted-proxies", "127.0.0.1 10.9.9.9")
    other = private_folder / "other"
    other.mkdir()
    not_trusting = with_acl(other, redis, rules)
    with stopping(trusting, not_trusting):
        with trusting.client() as http:
            for header, value, status in [
                ("X-Forwarded-For", "10.1.2.3", 200),
                ("X-Forwarded-For", "10.1.2.3, 10.9.9.9", 200),  # through two proxies of ours
                ("X-Forwarded-For", "10.1.2.3, 203.0.113.5", 403),  # the first is what a stranger says
                ("X-Forwarded-For", "203.0.113.5, 10.1.2.3", 200),
                ("X-Forwarded-For", "garbage, 203.0.113.5", 403),  # nor is it looked at
                ("X-Forwarded-For", "::ffff:10.1.2.3", 200),
                ("X-Forwarded-For", "garbage", 400),
                ("X-Forwarded-For", "10.1.2.3,", 400),
                ("X-Forwarded-For", "10.1.2.3:5555", 200),  # as Azure's gateway writes it
                ("X-Forwarded-For", "203.0.113.5:80, [::ffff:10.1.2.3]:5555", 200),
                ("X-Forwarded-For", "203.0.113.5:80", 403),
                ("X-Forwarded-For", "[::ffff:10.1.2.3]", 200),
                ("X-Forwarded-For", "10.1.2.3:5555:6666", 400),
                ("X-Real-IP", "10.1.2.3", 200),
                ("X-Real-IP", "x" * 300, 400),
            ]:
                assert http.get("/stats/", headers={header: value}).status_code == status, value
        with not_trusting.client() as http:
            assert http.get("/stats/", headers={"X-Forwarded-For": "10.1.2.3"}).status_code == 403


def test_an_invalid_forwarded_address_gets_400(private_folder: Path, redis: Redis) -> None:
    rules = "[rest:consumer]\nhosts_allow = 127.0.0.1\n"
    daemon = with_acl(private_folder, redis, rules, "--trusted-proxies", "127.0.0.1")
    with stopping(daemon), daemon.client() as http:
        assert http.get("/stats/").status_code == 200  # the proxy itself
        for forwarded in ("1.2.3.4:http", "unknown", "_hidden"):
            refused = http.get("/stats/", headers={"X-Forwarded-For": forwarded})
            assert refused.status_code == 400
            assert "X-Forwarded-For is invalid" in refused.json()["error"]


# Endpoints


@pytest.mark.needs("openssl", "curl")
def test_tls_with_alpn_serves_requests_and_streams(private_folder: Path, redis: Redis, queue: str) -> None:
    authority, port = Authority(private_folder), free_port()
    cert, key = authority.issue("localhost")
    unix = private_folder / "http.sock"
    tls = f"ssl:{port}:privateKey={key}:certKey={cert}:interface=127.0.0.1"
    with stopping(Daemon(private_folder, "--endpoint", tls, "--endpoint", f"unix:{unix}", redis=redis)):
        base = f"https://localhost:{port}"
        assert (
            curl("--cacert", str(authority.path), "--http1.1", f"{base}/q/{queue}", "-d", "value=x")
            == f"{queue}:1\r\n".encode()
        )
        assert b'"value":"x"' in curl("--cacert", str(authority.path), f"{base}/q/{queue}")  # offers h2 and http/1.1
        assert curl("--unix-socket", str(unix), f"http://any/q/{queue}", "-d", "value=y") == f"{queue}:2\r\n".encode()
        context = ssl.create_default_context(cafile=str(authority.path))
        context.set_alpn_protocols(["h2", "http/1.1"])

        def connect() -> ssl.SSLSocket:
            return context.wrap_socket(socket.create_connection(("localhost", port), 20), server_hostname="localhost")

        with connect() as comet:
            assert comet.selected_alpn_protocol() == "http/1.1"
            comet.sendall(f"GET /c/{queue} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            received = b""
            while f"{queue}:2".encode() not in received:
                received += comet.recv(65536)
        with connect() as web:
            web.sendall(f"GET /ws/{queue} HTTP/1.1\r\nHost: localhost\r\n{WEBSOCKET}\r\n".encode())
            assert web.recv(65536).startswith(b"HTTP/1.1 101 ")

        def waiters(count: int) -> bool:
            stats = curl("--unix-socket", str(unix), f"http://any/stats/{queue}-left")
            return f'"waiters":{count}'.encode() in stats.replace(b" ", b"")

        at_unix = socket.socket(socket.AF_UNIX)
        at_unix.connect(str(unix))
        leaving = (connect(), at_unix)
        for client in leaving:
            client.sendall(2 * f"GET /q/{queue}-left?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: waiters(2))
        for client in leaving:
            client.close()
        wait_until(lambda: waiters(0))


def test_an_invalid_endpoint_is_one_line_of_error(private_folder: Path) -> None:
    assert "restmq: --endpoint" in refusal(private_folder, "restmq", "--endpoint", "nonsense:1").splitlines()[-1]
