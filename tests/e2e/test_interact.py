"""examples/interact.html in a real browser, served as its head says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.servers import ROOT, Daemon, Redis, listeners, stopping, wait_until

pytestmark = pytest.mark.needs("chromium", "chromedriver")


def state(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.ID, "state").text


def lines(browser: webdriver.Chrome) -> list[tuple[str, str]]:
    """What was sent and heard, first to last."""
    script = "return [...document.querySelectorAll('#log li')].map((line) => [line.className, line.textContent]);"
    return [(kind, text) for kind, text in reversed(browser.execute_script(script))]


def connect(browser: webdriver.Chrome, site: str, daemon: Daemon, queue: str) -> None:
    browser.get(f"{site}/interact.html")
    for field, value in (("server", daemon.url.replace("http", "ws")), ("queue", queue)):
        box = browser.find_element(By.ID, field)
        box.clear()
        box.send_keys(value)
    browser.find_element(By.CSS_SELECTOR, "#connection button").click()


def test_it_hears_puts_and_sends(
    browser: webdriver.Chrome, site: str, private_folder: Path, private_redis: Redis
) -> None:
    daemon = Daemon(private_folder / "d", "--allow-origin", site, redis=private_redis)
    queue = "a/b <c>"
    with stopping(daemon):
        connect(browser, site, daemon, queue)
        wait_until(lambda: state(browser) == "Connected; listening to a/b <c>.")
        wait_until(lambda: listeners(private_redis, queue))
        with daemon.client() as client:
            client.post("/q/a%2Fb%20%3Cc%3E", data={"value": "<b>from elsewhere</b>"})
        wait_until(lambda: len(lines(browser)) == 1)
        assert lines(browser)[0] == ("heard", '{"key":"a/b <c>:1","value":"<b>from elsewhere</b>"}')

        browser.find_element(By.ID, "message").send_keys("from here")
        browser.find_element(By.ID, "put").click()
        wait_until(lambda: len(lines(browser)) == 4)  # the command, its answer, and the message
        assert lines(browser)[1] == ("sent", '{"cmd":"add","queue":"a/b <c>","value":"from here"}')
        assert {text for _, text in lines(browser)[2:]} == {
            '{"key":"a/b <c>:2","value":"from here"}',
            '{"queue":"a/b <c>","value":"from here","key":"a/b <c>:2"}',
        }

        browser.find_element(By.ID, "message").send_keys("echo me")
        browser.find_element(By.ID, "raw").click()
        wait_until(lambda: lines(browser)[-1] == ("heard", "echo me"))
        assert [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]] == []
        daemon.stop()
        wait_until(lambda: state(browser).startswith("The connection has ended (1001"))
        assert not browser.find_element(By.ID, "put").is_enabled()


def test_a_server_that_does_not_admit_the_page_is_told_plainly(
    browser: webdriver.Chrome, site: str, daemon: Daemon, queue: str
) -> None:
    connect(browser, site, daemon, queue)
    wait_until(lambda: state(browser).startswith("No connection"))
    assert "--allow-origin" in state(browser)


def test_its_head_says_how_to_run_it() -> None:
    page = (ROOT / "examples" / "interact.html").read_text()
    assert re.search(r"python3 -m http\.server 8000 .*--directory examples", page)
    assert "http://127.0.0.1:8000/interact.html" in page
