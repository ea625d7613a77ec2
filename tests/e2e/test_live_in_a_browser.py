"""What a page in a real browser receives, and what pages of other sites can't do."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from tests.servers import Comet, Daemon, Redis, listeners, stopping, wait_until

pytestmark = pytest.mark.needs("chromium", "chromedriver")


def post(daemon: Daemon, queue: str, value: str) -> str:
    with daemon.client() as client:
        return client.post(f"/q/{queue}", data={"value": value}).text.strip()


def heard(browser: webdriver.Chrome, count: int) -> list[Any]:
    wait_until(lambda: browser.execute_script("return window.heard.length") >= count, why="the page hears")
    return list(browser.execute_script("return window.heard"))


def test_event_source_receives_messages_and_catches_up_after_a_restart(
    browser: webdriver.Chrome, daemon: Daemon, mortal: Daemon, redis: Redis, queue: str
) -> None:
    with daemon.client() as client:
        client.post(f"/p/{queue}", data={"history": "100"})
    other = Comet(daemon, f"/c/{queue}")  # without a consumer, messages would wait instead of going to the history
    browser.get(f"{mortal.url}/queue")
    browser.execute_script(
        "window.heard = []; window.source = new EventSource(`/sse/${arguments[0]}`);"
        "source.onmessage = (event) => heard.push([event.lastEventId, event.data]);",
        queue,
    )
    wait_until(lambda: listeners(redis, queue) == 2)
    first = post(daemon, queue, "two\nlines")
    assert heard(browser, 1) == [[first, "two\nlines"]]
    mortal.stop()
    missed = [post(daemon, queue, str(n)) for n in range(3)]
    mortal.start()
    wait_until(lambda: listeners(redis, queue) == 2)
    live = post(daemon, queue, "live")
    assert [key for key, _ in heard(browser, 5)] == [first, *missed, live]
    other.close()


def test_event_source_on_several_queues_catches_up_with_all_after_a_restart(
    browser: webdriver.Chrome, daemon: Daemon, mortal: Daemon, redis: Redis, queue: str
) -> None:
    queues = [f"{queue}-a", f"{queue}-b"]
    path = f"/listen?queue={queues[0]}&queue={queues[1]}"
    with daemon.client() as client:
        for each in queues:
            client.post(f"/p/{each}", data={"history": "100"})
    other = Comet(daemon, path)
    browser.get(f"{mortal.url}/queue")
    browser.execute_script(
        "window.heard = []; window.source = new EventSource(arguments[0]);"
        "for (const queue of arguments[1])"
        "  source.addEventListener(queue, (event) => heard.push([event.type, event.data]));",
        path,
        queues,
    )
    wait_until(lambda: all(listeners(redis, each) == 2 for each in queues))
    post(daemon, queues[0], "first")
    assert heard(browser, 1) == [[queues[0], "first"]]
    mortal.stop()
    for each in (*queues, queues[1]):
        post(daemon, each, "missed")
    mortal.start()
    wait_until(lambda: all(listeners(redis, each) == 2 for each in queues))
    found = heard(browser, 4)
    assert sorted(found[1:]) == sorted([[each, "missed"] for each in (*queues, queues[1])])
    for number, each in enumerate(queues, 5):
        post(daemon, each, "live")
        assert heard(browser, number)[-1] == [each, "live"]
    other.close()


def test_event_source_taps_a_queue_beside_a_worker_and_is_told_of_what_it_missed(
    browser: webdriver.Chrome, daemon: Daemon, mortal: Daemon, queue: str
) -> None:
    def work() -> str:
        with daemon.client() as client:
            leased = client.get(f"/q/{queue}", params={"lease": 60, "wait": 20}).json()
            acked = client.delete(f"/m/{leased['key']}", params={"receipt": leased["receipt"]})
            return str(leased["value"]) if acked.status_code == 204 else "not acked"

    browser.get(f"{mortal.url}/queue")
    browser.execute_script(
        "window.heard = []; window.source = new EventSource(`/tap/${arguments[0]}`);"
        "source.onmessage = (event) => heard.push(event.data);"
        "source.addEventListener('gap', (event) => heard.push(JSON.parse(event.data).last_event_id));",
        queue,
    )
    wait_until(lambda: browser.execute_script("return source.readyState === EventSource.OPEN"))
    values = ["one", "two", "three"]
    for value in values:
        last = post(daemon, queue, value)
    assert [work() for _ in values] == values
    assert heard(browser, 3) == values
    mortal.stop()
    post(daemon, queue, "missed")
    mortal.start()
    assert heard(browser, 4) == [*values, last]
    post(daemon, queue, "live")
    assert heard(browser, 5) == [*values, last, "live"]
    assert [work() for _ in range(2)] == ["missed", "live"]


def test_websocket_receives_messages_and_echoes(
    browser: webdriver.Chrome, daemon: Daemon, redis: Redis, queue: str
) -> None:
    browser.get(f"{daemon.url}/queue")
    browser.execute_script(
        "window.heard = []; window.socket = new WebSocket(`ws://${location.host}/ws/${arguments[0]}`, 'restmq');"
        "socket.onmessage = (event) => heard.push(event.data); socket.onopen = () => socket.send('hello');",
        queue,
    )
    assert heard(browser, 1) == ["hello"]
    key = post(daemon, queue, "to the page")
    assert heard(browser, 2)[1] == f'{{"key":"{key}","value":"to the page"}}'


def test_jsonp_reports_an_empty_queue_and_an_error(browser: webdriver.Chrome, daemon: Daemon, queue: str) -> None:
    browser.get(f"{daemon.url}/queue")
    browser.execute_script(
        "window.heard = []; window.got = (answer) => heard.push(answer);"
        "for (const path of [`/q/${arguments[0]}?`, '/q/%ff?']) {"
        "  const script = document.createElement('script'); script.src = path + 'callback=got';"
        "  script.async = false; script.onerror = () => heard.push('wrong'); document.head.append(script);"
        "}",
        queue,
    )
    assert sorted(map(str, heard(browser, 2))) == sorted([str({"error": "empty queue"}), "wrong"])


@pytest.fixture(scope="module")
def other_site(module_folder: Path) -> Iterator[str]:
    """A page of another site: ``localhost`` is cross-site to ``127.0.0.1``."""
    site = module_folder / "site"
    site.mkdir()
    (site / "index.html").write_text("<!DOCTYPE html><title>elsewhere</title>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_address[1]}"
    server.shutdown()


ATTACKS = """
const [target, queue, done] = arguments;
const settled = (promise) => promise.then(() => "through", () => "refused");
const script = new Promise((resolve, reject) => {
  window.got = resolve;
  const tag = document.createElement("script");
  tag.src = `${target}/q/${queue}?callback=got`;
  tag.onerror = reject;
  tag.onload = () => setTimeout(reject, 0);
  document.head.append(tag);
});
const socket = new Promise((resolve, reject) => {
  const opened = new WebSocket(`${target.replace("http", "ws")}/ws/${queue}`);
  opened.onopen = resolve;
  opened.onerror = reject;
});
Promise.all([
  settled(fetch(`${target}/q/${queue}`, { method: "POST", body: new URLSearchParams({ value: "evil" }) })
    .then((answer) => { if (!answer.ok) throw answer; })),
  settled(fetch(`${target}/q/${queue}`).then((answer) => answer.json())),
  settled(script),
  settled(socket),
]).then(done);
"""


def test_a_page_of_another_site_can_neither_publish_nor_take(
    browser: webdriver.Chrome, daemon: Daemon, redis: Redis, queue: str, other_site: str
) -> None:
    key = post(daemon, queue, "mine")
    browser.get(other_site)
    assert browser.execute_async_script(ATTACKS, daemon.url, queue) == ["refused"] * 4
    blind = (
        "const [target, queue, done] = arguments;"
        "fetch(`${target}/q/${queue}`, {method: 'POST', mode: 'no-cors', body: new URLSearchParams({value: 'evil'})})"
        ".then(() => done(), () => done());"
    )
    browser.execute_async_script(blind, daemon.url, queue)
    assert redis.command("LRANGE", f"{queue}:queue", "0", "-1") == [key]


def test_an_allowed_site_can_publish(browser: webdriver.Chrome, by_name: Daemon, queue: str, other_site: str) -> None:
    browser.get(other_site.replace("localhost", "app.test"))
    script = (
        "const [target, queue, done] = arguments;"
        "fetch(`${target}/q/${queue}`, {method: 'POST', headers: {'Idempotency-Key': 'k'},"
        " body: new URLSearchParams({value: 'welcome'})})"
        ".then((answer) => answer.text()).then(done, (error) => done(String(error)));"
    )
    assert browser.execute_async_script(script, by_name.url, queue) == f"{queue}:1\r\n"


def test_event_source_with_credentials_receives_messages_on_an_allowed_site(
    browser: webdriver.Chrome, by_name: Daemon, redis: Redis, queue: str, other_site: str
) -> None:
    browser.get(other_site.replace("localhost", "app.test"))
    browser.execute_script(
        "window.heard = []; window.source = new EventSource(`${arguments[0]}/sse/${arguments[1]}`,"
        " {withCredentials: true}); source.onmessage = (event) => heard.push(event.data);"
        "source.onerror = () => heard.push('error');",
        by_name.url,
        queue,
    )
    wait_until(lambda: listeners(redis, queue))
    post(by_name, queue, "welcome")
    assert heard(browser, 1) == ["welcome"]


def test_an_allowed_site_can_send_all_documented_headers(
    browser: webdriver.Chrome, by_name: Daemon, queue: str, other_site: str
) -> None:
    browser.get(other_site.replace("localhost", "app.test"))
    script = (
        "const [target, headers, done] = arguments;"
        "fetch(target, {method: 'POST', credentials: 'include', headers, body: 'welcome'})"
        ".then((answer) => answer.text()).then(done, (error) => done(String(error)));"
    )
    headers = {
        "Cache-Control": "no-cache", "Content-Type": "text/plain", "Idempotency-Key": "k", "Last-Event-ID": "q:1",
        "X-Request-Id": "r",
    }  # fmt: skip
    assert browser.execute_async_script(script, f"{by_name.url}/q/{queue}", headers) == f"{queue}:1\r\n"


BY_SCRIPT_ELEMENT = """
const [url, policy, done] = arguments;
window.got = (message) => done(message.value);
const tag = document.createElement("script");
tag.src = url;
tag.referrerPolicy = policy;
tag.onerror = () => done("refused");
document.head.append(tag);
"""


@pytest.fixture(scope="module")
def by_name(module_folder: Path, redis: Redis, other_site: str) -> Iterator[Daemon]:
    """A server that allows two sites. By its name, over plain HTTP, browsers send it no Fetch Metadata."""
    pages = (other_site.replace("localhost", "app.test"), other_site.replace("localhost", "127.0.0.1"))
    origins = [f"--allow-origin={page}" for page in pages]
    with stopping(Daemon(module_folder / "by-name", "--allow-host", "queue.test", *origins, redis=redis)) as daemon:
        yield daemon


@pytest.mark.parametrize("policy", ["", "no-referrer"])
@pytest.mark.parametrize(("page", "server"), [("evil.test", "queue.test"), ("localhost", "localhost")])
def test_a_script_element_on_another_site_takes_nothing(
    browser: webdriver.Chrome,
    by_name: Daemon,
    redis: Redis,
    queue: str,
    other_site: str,
    page: str,
    server: str,
    policy: str,
) -> None:
    key = post(by_name, queue, "mine")
    browser.get(other_site.replace("localhost", page))
    url = f"http://{server}:{by_name.port}/q/{queue}?callback=got"
    assert browser.execute_async_script(BY_SCRIPT_ELEMENT, url, policy) == "refused"
    browser.get(f"{other_site.replace('localhost', page)}/#linked")
    link = "const link = document.body.appendChild(document.createElement('a')); link.href = arguments[0]; link.click()"
    browser.execute_script(link, f"http://{server}:{by_name.port}/dashboard")
    wait_until(lambda: browser.current_url.endswith("/dashboard") and browser.title, why="links lead to the dashboard")
    assert "RestMQ" in browser.title
    assert redis.command("LRANGE", f"{queue}:queue", "0", "-1") == [key]


@pytest.mark.parametrize(("page", "server"), [("app.test", "queue.test"), ("127.0.0.1", "127.0.0.1")])
def test_a_script_element_on_an_allowed_site_takes_a_message(
    browser: webdriver.Chrome, by_name: Daemon, queue: str, other_site: str, page: str, server: str
) -> None:
    post(by_name, queue, "yours")
    browser.get(other_site.replace("localhost", page))
    url = f"http://{server}:{by_name.port}/q/{queue}?callback=got"
    assert browser.execute_async_script(BY_SCRIPT_ELEMENT, url, "") == "yours"
