"""examples/events.html and examples/jsonp.html in a real browser, served as their heads say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.servers import ROOT, Comet, Daemon, Redis, listeners, stopping, wait_until

pytestmark = pytest.mark.needs("chromium", "chromedriver")

QUEUE = "a/b <c>"
PATH = "a%2Fb%20%3Cc%3E"


@pytest.fixture
def daemon(private_folder: Path, private_redis: Redis, site: str) -> Iterator[Daemon]:
    """One that admits the site."""
    server = Daemon(private_folder / "d", "--allow-origin", site, redis=private_redis)
    with stopping(server):
        yield server


def put(daemon: Daemon, *values: str) -> list[str]:
    with daemon.client() as http:
        return [http.post(f"/q/{PATH}", data={"value": value}).raise_for_status().text.strip() for value in values]


def begin(browser: webdriver.Chrome, page: str, daemon: Daemon) -> None:
    """Opens the page, names the server and the queue, and presses its button."""
    browser.get(page)
    for field, value in (("server", daemon.url), ("queue", QUEUE)):
        box = browser.find_element(By.ID, field)
        box.clear()
        box.send_keys(value)
    browser.find_element(By.CSS_SELECTOR, "form button").click()


def state(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.ID, "state").text


def texts(browser: webdriver.Chrome, selector: str) -> list[str]:
    """What the page shows, first to last."""
    script = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent);"
    return list(reversed(browser.execute_script(script, selector)))


def complaints(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if "favicon" not in entry["message"]]


def test_events_are_shown_as_they_come(
    browser: webdriver.Chrome, site: str, daemon: Daemon, private_redis: Redis
) -> None:
    begin(browser, f"{site}/events.html", daemon)
    wait_until(lambda: state(browser) == "Listening to a/b <c>.")
    wait_until(lambda: listeners(private_redis, QUEUE))
    keys = put(daemon, "<b>one</b>", "two\nlines")
    wait_until(lambda: len(texts(browser, "dd")) == 2)
    assert texts(browser, "dd") == ["<b>one</b>", "two\nlines"]
    assert texts(browser, "dt") == keys
    assert complaints(browser) == []


def test_the_events_page_catches_up_after_the_server_was_away(
    browser: webdriver.Chrome, site: str, daemon: Daemon, private_folder: Path, private_redis: Redis
) -> None:
    other = Daemon(private_folder / "other", redis=private_redis)
    with stopping(other):
        with other.client() as http:
            http.post(f"/p/{PATH}", data={"history": "3"})
        witness = Comet(other, f"/c/{PATH}")  # while the page's server is away, somebody hears
        begin(browser, f"{site}/events.html", daemon)
        wait_until(lambda: listeners(private_redis, QUEUE) == 2)
        put(daemon, "first")
        wait_until(lambda: texts(browser, "dd") == ["first"])

        daemon.stop()
        wait_until(lambda: state(browser) == "The connection has ended; reconnecting…")
        put(other, "missed")
        daemon.start()
        wait_until(lambda: texts(browser, "dd")[1:] == ["missed"])

        daemon.stop()
        put(other, "too", "many", "for", "three")
        daemon.start()
        wait_until(lambda: texts(browser, "dd")[3:] == ["many", "for", "three"])
        assert texts(browser, "dd.gap") == [texts(browser, "dd")[2]]
        assert texts(browser, "dt")[2] == f"{QUEUE}:2"
        witness.close()


def test_jsonp_takes_what_is_there_and_waits_for_what_comes(
    browser: webdriver.Chrome, site: str, daemon: Daemon, private_redis: Redis
) -> None:
    (first,) = put(daemon, "<b>there</b>\u2028")
    begin(browser, f"{site}/jsonp.html", daemon)
    wait_until(lambda: state(browser) == "A message was taken.")
    assert texts(browser, "#taken li") == [f"{first}  <b>there</b>\u2028"]
    browser.find_element(By.CSS_SELECTOR, "form button").click()
    with daemon.client() as http:
        wait_until(lambda: http.get(f"/stats/{PATH}").json()["waiters"] == 1)
    assert state(browser) == "Waiting for a message in a/b <c>…"
    (second,) = put(daemon, "awaited")
    wait_until(lambda: texts(browser, "#taken li")[1:] == [f"{second}  awaited"])
    assert private_redis.command("LLEN", f"{QUEUE}:queue") == 0
    assert browser.execute_script("return document.querySelectorAll('head script').length") == 0
    assert complaints(browser) == []


def test_jsonp_says_that_nothing_came(browser: webdriver.Chrome, site: str, daemon: Daemon) -> None:
    browser.get(f"{site}/jsonp.html")
    found = browser.execute_async_script(
        "const done = arguments[1]; element('server').value = arguments[0];"
        "take('empty', 1).then((message) => done([message]), () => done('refused'));",
        daemon.url,
    )
    assert found == [None]


@pytest.mark.parametrize("page", ["events.html", "jsonp.html"])
def test_a_server_that_does_not_admit_the_page_is_told_plainly(
    browser: webdriver.Chrome, site: str, private_folder: Path, private_redis: Redis, page: str
) -> None:
    closed = Daemon(private_folder / "closed", redis=private_redis)
    with stopping(closed):
        (key,) = put(closed, "mine")
        begin(browser, f"{site}/{page}", closed)
        wait_until(lambda: "--allow-origin" in state(browser))
        assert private_redis.command("LRANGE", f"{QUEUE}:queue", "0", "-1") == [key]


@pytest.mark.parametrize("page", ["events.html", "jsonp.html", "interact.html"])
def test_the_head_says_how_it_is_run(page: str) -> None:
    head = (ROOT / "examples" / page).read_text().partition("-->")[0]
    assert re.search(r"^ +python3 -m http\.server 8000 --bind 127\.0\.0\.1 --directory examples$", head, re.MULTILINE)
    assert re.search(r"restmq_server --allow-origin http://127\.0\.0\.1:8000$", head, re.MULTILINE)
    assert f"http://127.0.0.1:8000/{page}" in head
    assert re.search(r"^Shows ", head, re.MULTILINE)
