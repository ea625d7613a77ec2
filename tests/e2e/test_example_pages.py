"""The HTML pages in examples/ in a real browser, served as their comments say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.servers import ROOT, Comet, Daemon, Redis, listeners, stopping, wait_until

pytestmark = pytest.mark.needs("chromium", "chromedriver")


@pytest.fixture
def queue(queue: str) -> str:
    """A name with characters that URLs and HTML need escaped."""
    return f"{queue}/b <c>"


@pytest.fixture(scope="module")
def admitting(module_folder: Path, redis: Redis, site: str) -> Iterator[Daemon]:
    """A server that allows the site of the pages. Tests may stop it, and must start it again."""
    with stopping(Daemon(module_folder / "admitting", "--allow-origin", site, redis=redis)) as server:
        yield server


def put(daemon: Daemon, queue: str, *values: str) -> list[str]:
    path = f"/q/{quote(queue, safe='')}"
    with daemon.client() as http:
        return [http.post(path, data={"value": value}).raise_for_status().text.strip() for value in values]


def begin(browser: webdriver.Chrome, page: str, daemon: Daemon, queue: str) -> None:
    """Opens the page, enters the server and the queue, and presses its first button."""
    browser.get(page)
    url = daemon.url.replace("http", "ws") if page.endswith("interact.html") else daemon.url
    for field, value in (("server", url), ("queue", queue)):
        box = browser.find_element(By.ID, field)
        box.clear()
        box.send_keys(value)
    browser.find_element(By.CSS_SELECTOR, "form button").click()


def state(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.ID, "state").text


def texts(browser: webdriver.Chrome, selector: str) -> list[str]:
    """The texts that the page shows, oldest first."""
    script = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent);"
    return list(reversed(browser.execute_script(script, selector)))


def complaints(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if "favicon" not in entry["message"]]


def test_the_events_page_shows_messages_live(
    browser: webdriver.Chrome, site: str, admitting: Daemon, redis: Redis, queue: str
) -> None:
    begin(browser, f"{site}/events.html", admitting, queue)
    wait_until(lambda: state(browser) == f"Listening to {queue}.")
    wait_until(lambda: listeners(redis, queue))
    keys = put(admitting, queue, "<b>one</b>", "two\nlines")
    wait_until(lambda: len(texts(browser, "dd")) == 2)
    assert texts(browser, "dd") == ["<b>one</b>", "two\nlines"]
    assert texts(browser, "dt") == keys
    assert complaints(browser) == []


def test_the_events_page_catches_up_after_an_outage(
    browser: webdriver.Chrome, site: str, daemon: Daemon, admitting: Daemon, redis: Redis, queue: str
) -> None:
    with daemon.client() as http:
        http.post("/p/" + quote(queue, safe=""), data={"history": "3"})
    other = Comet(daemon, "/c/" + quote(queue, safe=""))  # without a consumer, messages would wait in the queue
    begin(browser, f"{site}/events.html", admitting, queue)
    wait_until(lambda: listeners(redis, queue) == 2)
    put(daemon, queue, "first")
    wait_until(lambda: texts(browser, "dd") == ["first"])

    admitting.stop()
    wait_until(lambda: state(browser) == "The connection has ended; reconnecting…")
    put(daemon, queue, "missed")
    admitting.start()
    wait_until(lambda: texts(browser, "dd")[1:] == ["missed"])

    admitting.stop()
    put(daemon, queue, "too", "many", "for", "three")
    admitting.start()
    wait_until(lambda: texts(browser, "dd")[3:] == ["many", "for", "three"])
    assert texts(browser, "dd.gap") == [texts(browser, "dd")[2]]
    assert texts(browser, "dt")[2] == f"{queue}:2"
    other.close()


def test_the_jsonp_page_takes_a_message_or_waits_for_one(
    browser: webdriver.Chrome, site: str, admitting: Daemon, redis: Redis, queue: str
) -> None:
    (first,) = put(admitting, queue, "<b>there</b>\u2028")
    begin(browser, f"{site}/jsonp.html", admitting, queue)
    wait_until(lambda: state(browser) == "A message was taken.")
    assert texts(browser, "#taken li") == [f"{first}  <b>there</b>\u2028"]
    browser.find_element(By.CSS_SELECTOR, "form button").click()
    with admitting.client() as http:
        wait_until(lambda: http.get("/stats/" + quote(queue, safe="")).json()["waiters"] == 1)
    assert state(browser) == f"Waiting for a message in {queue}…"
    (second,) = put(admitting, queue, "awaited")
    wait_until(lambda: texts(browser, "#taken li")[1:] == [f"{second}  awaited"])
    assert redis.command("LLEN", f"{queue}:queue") == 0
    assert browser.execute_script("return document.querySelectorAll('head script').length") == 0
    assert complaints(browser) == []


def test_the_jsonp_page_reports_that_no_message_came(browser: webdriver.Chrome, site: str, admitting: Daemon) -> None:
    browser.get(f"{site}/jsonp.html")
    found = browser.execute_async_script(
        "const done = arguments[1]; element('server').value = arguments[0];"
        "take('empty', 1).then((message) => done([message]), () => done('refused'));",
        admitting.url,
    )
    assert found == [None]


def lines(browser: webdriver.Chrome) -> list[tuple[str, str]]:
    """The log of the interact page, first line first."""
    script = "return [...document.querySelectorAll('#log li')].map((line) => [line.className, line.textContent]);"
    return [(kind, text) for kind, text in reversed(browser.execute_script(script))]


def test_the_interact_page_receives_publishes_and_sends(
    browser: webdriver.Chrome, site: str, admitting: Daemon, redis: Redis, queue: str
) -> None:
    begin(browser, f"{site}/interact.html", admitting, queue)
    wait_until(lambda: state(browser) == f"Connected; listening to {queue}.")
    wait_until(lambda: listeners(redis, queue))
    (key,) = put(admitting, queue, "<b>from elsewhere</b>")
    wait_until(lambda: len(lines(browser)) == 1)
    assert lines(browser)[0] == ("heard", f'{{"key":"{key}","value":"<b>from elsewhere</b>"}}')

    browser.find_element(By.ID, "message").send_keys("from here")
    browser.find_element(By.ID, "put").click()
    wait_until(lambda: len(lines(browser)) == 4)  # the command, its answer, and the message
    assert lines(browser)[1] == ("sent", f'{{"cmd":"add","queue":"{queue}","value":"from here"}}')
    assert {text for _, text in lines(browser)[2:]} == {
        f'{{"key":"{queue}:2","value":"from here"}}',
        f'{{"queue":"{queue}","value":"from here","key":"{queue}:2"}}',
    }

    browser.find_element(By.ID, "message").send_keys("echo me")
    browser.find_element(By.ID, "raw").click()
    wait_until(lambda: lines(browser)[-1] == ("heard", "echo me"))
    assert complaints(browser) == []
    admitting.stop()
    wait_until(lambda: state(browser).startswith("The connection has ended (1001"))
    assert not browser.find_element(By.ID, "put").is_enabled()
    admitting.start()


@pytest.mark.parametrize("page", ["events.html", "jsonp.html", "interact.html"])
def test_an_example_page_reports_that_the_server_does_not_allow_its_site(
    browser: webdriver.Chrome, site: str, daemon: Daemon, redis: Redis, queue: str, page: str
) -> None:
    (key,) = put(daemon, queue, "mine")
    begin(browser, f"{site}/{page}", daemon, queue)
    wait_until(lambda: "--allow-origin" in state(browser))
    assert redis.command("LRANGE", f"{queue}:queue", "0", "-1") == [key]


@pytest.mark.parametrize("page", ["events.html", "jsonp.html", "interact.html"])
def test_the_comment_of_an_example_page_says_how_to_run_it(page: str) -> None:
    head = (ROOT / "examples" / page).read_text().partition("-->")[0]
    assert re.search(r"^ +python3 -m http\.server 8000 --bind 127\.0\.0\.1 --directory examples$", head, re.MULTILINE)
    assert re.search(r"restmq_server --allow-origin http://127\.0\.0\.1:8000$", head, re.MULTILINE)
    assert f"http://127.0.0.1:8000/{page}" in head
    assert re.search(r"^Shows ", head, re.MULTILINE)
