"""Pages, lists and XML-RPC, which clients of the first RestMQ depend on."""

from __future__ import annotations

import json
import re
import xmlrpc.client
from pathlib import Path

import httpx
import pytest

from tests.servers import Daemon, Redis, stopping

NASTY = '<script>alert("1")</script>'


def test_queues_are_listed_as_links_and_as_json(http: httpx.Client, queue: str) -> None:
    name = f"{queue}/a b&<ü>"
    path = f"/q/{queue}%2Fa%20b%26%3C%C3%BC%3E"
    assert http.post(path, data={"value": "x"}).text.strip() == f"{name}:1"
    page = http.get("/q/?count=100000")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert f'href="../j/{queue}%2Fa%20b%26%3C%C3%BC%3E"' in page.text
    assert f"{queue}/a b&amp;&lt;ü&gt;" in page.text
    assert name in http.get("/q/", headers={"Accept": "application/json"}).json()["queues"]
    assert name in http.get("/control/").json()["queues"]
    assert http.get(path).json()["key"] == f"{name}:1"


def test_the_page_of_a_queue_shows_what_is_known_of_a_message(http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"max_deliveries": "1"})
    headers = {"Content-Type": "text/plain", "traceparent": "00-<b>-01"}
    http.post(f"/q/{queue}", content="x", headers=headers)
    message = http.get(f"/q/{queue}?lease=1000").json()
    assert "The newest messages" in http.get(f"/j/{queue}").text
    assert f"{queue}:1" in http.get(f"/j/{queue}?list=leased").text
    http.post("/m/" + message["key"], data={"receipt": message["receipt"], "lease": "0", "reason": "disk <full>"})
    page = http.get(f"/j/{queue}?list=dead").text
    text = re.sub(r"<[^>]+>", "", page)
    for fact in (r"published \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", r"failed \d{4}-", r"died \d{4}-", "first delivery "):
        assert re.search(fact, text), fact
    for fact in ("reason disk &lt;full&gt;", "deliveries 1", "content-type text/plain", "traceparent 00-&lt;b&gt;-01"):
        assert fact in text, fact


def test_pages_escape_what_clients_sent_and_load_nothing_from_elsewhere(http: httpx.Client, queue: str) -> None:
    http.post(f"/q/{queue}", data={"value": NASTY})
    http.post(f"/q/{queue}{NASTY.replace('/', '%2F')}", data={"value": "x"})
    for path in ("/q/", "/dashboard", f"/j/{queue}", "/queue"):
        page = http.get(path)
        assert page.status_code == 200, path
        assert NASTY not in page.text, path
        assert "http://" not in page.text.replace("http://localhost:8888", ""), path
        assert "default-src 'self'" in page.headers["Content-Security-Policy"], path
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"], path
        assert page.headers["X-Content-Type-Options"] == "nosniff", path
        assert page.headers["Referrer-Policy"] == "same-origin", path


def test_the_job_page_shows_the_newest_ten(http: httpx.Client, queue: str) -> None:
    for number in range(12):
        http.post(f"/q/{queue}", data={"value": f"job-{number}-"})
    page = http.get(f"/j/{queue}").text
    assert [f"job-{number}-" in page for number in range(12)] == [False, False] + [True] * 10
    assert http.get(f"/stats/{queue}").json()["len"] == 12


def test_the_job_page_shows_counts_and_bytes_as_base64(http: httpx.Client, queue: str) -> None:
    for value in ("leased", "ready"):
        http.post(f"/q/{queue}", data={"value": value})
    http.post(f"/q/{queue}?delay=1000", content=b"later")
    http.get(f"/q/{queue}?lease=1000")
    http.post(f"/q/{queue}", content=b"\xff\x00")
    page = http.get(f"/j/{queue}").text
    assert f"<h1>Queue {queue}</h1>" in page
    assert re.findall(r"<dt>(\w+)</dt><dd>(\d+)</dd>", page) == [
        ("Ready", "2"), ("Leased", "1"), ("Delayed", "1"), ("Dead", "0"),
    ]  # fmt: skip
    assert "<pre>base64: /wA=</pre>" in page


@pytest.mark.parametrize("path", ["/", "/dashboard", "/queue", "/api", "/static/main.js", "/no/such"])
def test_head_of_a_page_has_the_headers_of_its_get(http: httpx.Client, path: str) -> None:
    got, head = http.get(path), http.head(path)
    assert head.status_code == got.status_code
    for name in ("Content-Type", "Location"):
        assert head.headers.get(name) == got.headers.get(name)


def test_the_root_redirects_to_the_dashboard_and_all_its_files_exist(http: httpx.Client) -> None:
    page = http.get("/", follow_redirects=True)
    assert page.status_code == 200
    named = {f"/{path}" for path in re.findall(r'(?:href|src)="\./(static/[^"]+)"', page.text)}
    assert {"/static/main.js", "/static/restmq.css", "/static/icon.svg"} <= named
    loaded: set[str] = set()
    while named - loaded:
        asset = (named - loaded).pop()
        loaded.add(asset)
        answer = http.get(asset)
        assert answer.status_code == 200, asset
        named |= {f"/static/{name}" for name in re.findall(r'from "\./([^"]+)"', answer.text)}
    assert len(loaded) > 10
    assert http.get("/static/..%2F..%2Fsetup.py").status_code == 404


def test_lists_of_queues_come_in_pages(private_folder: Path, private_redis: Redis) -> None:
    names = [f"queue-{number:04}" for number in range(1005)]
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        for name in names:
            http.post(f"/q/{name}", data={"value": "x"})
        for path in ("/stats/", "/control/"):
            page = http.get(path, params={"first": 1000, "count": 3}).json()
            assert (list(page["queues"]), page["count"]) == (names[1000:1003], 1005)
            assert http.get(f"{path}?first=2000").json()["queues"] == {}
            whole = http.get(path).json()["queues"]
            assert list(whole) == names
            called = http.get(path, params={"callback": "f"}).text
            assert json.loads(called.removeprefix("f(").removesuffix(");\r\n"))["queues"] == whole
        as_json = {"Accept": "application/json"}
        assert http.get("/q/?first=1003", headers=as_json).json()["queues"] == names[1003:]
        assert http.get("/q/", headers=as_json).json()["queues"] == names
        first = http.get("/q/").text
        assert "1 to 1000 of 1005." in first
        assert 'href="?first=1000"' in first
        assert names[999] in first
        assert names[1000] not in first
        last = http.get("/q/?first=1000").text
        assert names[1004] in last
        assert "Next page" not in last
        assert http.get("/stats/?count=0").status_code == 400


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/dashboard", "./"), ("/dashboard/", "../"), ("/q", "./"), ("/q/", "../"), ("/queue", "./"),
        ("/queue/a", "../"), ("/j/a", "../"), ("/j/a%2Fb", "../"), ("/j/a/b", "../"), ("/api/", "../"),
        ("/no/such/page", "../../"), ("/no-page", "./"), ("/q/%ff", "../"),
    ],
)  # fmt: skip
def test_links_of_pages_are_relative_to_the_root(http: httpx.Client, path: str, root: str) -> None:
    page = http.get(path, headers={"Accept": "text/html"}).text
    targets = re.findall(r'(?:href|src|action)="([^"#?]+)', page)
    assert len(targets) > 3
    assert {target for target in targets if not re.match(re.escape(root) + r"\w", target)} == set()


def test_an_icon_is_found_where_browsers_look_for_it(http: httpx.Client) -> None:
    icon = http.get("/favicon.ico")
    assert icon.headers["Content-Type"] == "image/svg+xml"
    assert icon.text.startswith("<svg ")


def test_the_store_is_described_without_its_path(http: httpx.Client, queue: str) -> None:
    for path in ("/stats/", f"/stats/{queue}", f"/control/{queue}", "/control/"):
        assert re.fullmatch(r"a Unix socket, \d+ connections", http.get(path).json()["redis"]), path


def test_a_stats_path_needs_no_slash(http: httpx.Client) -> None:
    assert http.get("/stats").json().keys() == {"queues", "redis", "count"}


@pytest.mark.parametrize("value", ["text", "ü <&>", b"\x00\xff", b"\x01 control"])
def test_xmlrpc_sets_and_gets(daemon: Daemon, queue: str, value: str | bytes) -> None:
    with xmlrpc.client.ServerProxy(f"{daemon.url}/xmlrpc", allow_none=True, use_builtin_types=True) as server:
        assert server.set(queue, value) == f"{queue}:1"
        assert server.get(queue) == {"key": f"{queue}:1", "value": value, "count": 0}
        assert server.get(queue) is None
        with pytest.raises(xmlrpc.client.Fault, match="get\\(queue\\)"):
            server.system.listMethods()


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("<int>42</int>", "42"),
        ("<i4>-007</i4>", "-007"),
        ("<i8>12345678901234567890</i8>", "12345678901234567890"),
        ("<double>1.10</double>", "1.10"),
        ("<boolean>1</boolean>", "1"),
        ("<string>" + "long &amp; " * 100_000 + "</string>", "long & " * 100_000),
        ("<![CDATA[" + "<&>" * 100_000 + "]]>", "<&>" * 100_000),
    ],
)
def test_xmlrpc_stores_the_text_of_numbers_and_of_long_strings(
    http: httpx.Client, queue: str, sent: str, stored: str
) -> None:
    answer = http.post("/xmlrpc", content=set_call(queue, sent), headers={"Content-Type": "text/xml"})
    assert f"{queue}:1" in answer.text
    assert http.get(f"/q/{queue}").json()["value"] == stored


@pytest.mark.parametrize("path", ["/queue", "/queue/q", "/xmlrpc"])
def test_a_command_above_the_limit_is_rejected(private_folder: Path, redis: Redis, path: str) -> None:
    daemon = Daemon(private_folder, "--max-command", "1000", redis=redis)
    with stopping(daemon), daemon.client() as http:
        kinds = {"/xmlrpc": "text/xml"}
        content = set_call("q", "x" * 1000) if path == "/xmlrpc" else '{"cmd": "add", "value": "' + "x" * 1000 + '"}'
        refused = http.post(path, content=content, headers={"Content-Type": kinds.get(path, "application/json")})
        assert (refused.status_code, "1000 bytes" in refused.json()["error"]) == (413, True)
        assert http.post("/q/q", data={"value": "x" * 2000}).status_code == 200


def set_call(queue: str, value: str, before: str = "") -> str:
    """The text of an XML-RPC call of ``set``."""
    return (
        f"{before}<methodCall><methodName>set</methodName><params><param><value>{queue}</value></param>"
        f"<param><value>{value}</value></param></params></methodCall>"
    )


DOCTYPE = '<!DOCTYPE a [<!ENTITY b "c">]>'


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "not a valid XML-RPC call"),
        ("\xff", "not a valid XML-RPC call"),
        ("<methodCall>", "not a valid XML-RPC call"),
        ("<x/>", "invalid element <x>"),
        (DOCTYPE + "<methodCall/>", "DOCTYPE"),
        (set_call("{queue}", "&b;", DOCTYPE), "DOCTYPE"),
        (set_call("{queue}", "<dateTime.iso8601/>"), "invalid element <dateTime.iso8601>"),
        (set_call("{queue}", "<nil/>"), "invalid element <nil>"),
        ("<methodCall " + " ".join(f'a{number}=""' for number in range(5000)) + "/>", "more than 16384 bytes"),
        (set_call("{queue}", "<!--" + "x" * 40_000 + "-->"), "more than 16384 bytes"),
        (set_call("{queue}", "<struct><member/></struct>"), "invalid element <struct>"),
        (
            set_call("{queue}", "<array><data><value>" * 3000 + "</value></data></array>" * 3000),
            "invalid element <array>",
        ),
        (set_call("{queue}", "<value>" * 3000 + "</value>" * 3000), "more than 50 elements"),
        (set_call("{queue}", "<base64>AA==</base64></value></param><param><value>"), "get\\(queue\\)"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xmlrpc_answers_an_invalid_call_with_a_fault(
    http: httpx.Client, redis: Redis, queue: str, body: str, why: str, encoding: str
) -> None:
    sent = body.replace("{queue}", queue).encode("latin-1" if body == "\xff" else encoding)
    answer = http.post("/xmlrpc", content=sent, headers={"Content-Type": "text/xml"})
    assert answer.status_code == 200
    with pytest.raises(xmlrpc.client.Fault, match=why):
        xmlrpc.client.loads(answer.text)
    assert redis.command("EXISTS", f"{queue}:queue") == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_xmlrpc_reads_text_in_the_encoding_that_it_names(http: httpx.Client, queue: str, encoding: str) -> None:
    text = "ü &amp; <![CDATA[<&>]]>\n" * 10_000
    body = set_call(queue, text, f'<?xml version="1.0" encoding="{encoding}"?>').encode(encoding)
    assert f"{queue}:1" in http.post("/xmlrpc", content=body).text
    assert http.get(f"/q/{queue}").json()["value"] == "ü & <&>\n" * 10_000


def test_an_error_is_a_page_for_a_browser_and_json_for_all_others(http: httpx.Client) -> None:
    page = http.get("/no/such", headers={"Accept": "text/html,application/xhtml+xml"})
    assert page.status_code == 404
    assert page.headers["Content-Type"].startswith("text/html")
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert "<p>There is nothing at this path" in page.text
    assert "error" in http.get("/no/such").json()


def test_deleting_by_key_takes_a_message_out_of_the_middle(http: httpx.Client, redis: Redis, queue: str) -> None:
    keys = [http.post(f"/q/{queue}", data={"value": str(n)}).text.strip() for n in range(3)]
    delete = {"cmd": "del", "queue": queue, "key": keys[1]}
    assert http.post(f"/queue/{queue}", json=delete).json() == {"queue": queue, "key": keys[1], "deleted": True}
    assert http.post(f"/queue/{queue}", json=delete).json()["deleted"] is False
    assert [http.get(f"/q/{queue}").json()["key"] for _ in range(2)] == [keys[0], keys[2]]
    assert redis.command("EXISTS", keys[1]) == 0
