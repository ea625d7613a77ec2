"""The pages that the server renders: commands at /queue, the API at /api, queues without the dashboard."""

from __future__ import annotations

import json

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.e2e.page import SHOWN, Page
from tests.servers import Daemon, wait_until

pytestmark = pytest.mark.needs("chromium", "chromedriver")


def test_the_command_page_runs_a_command(
    browser: webdriver.Chrome, daemon: Daemon, http: httpx.Client, queue: str
) -> None:
    browser.get(f"{daemon.url}/queue")
    field = browser.find_element(By.ID, "body")
    field.clear()
    field.send_keys(json.dumps({"cmd": "add", "queue": queue, "value": "from the page"}))
    browser.find_element(By.TAG_NAME, "button").click()
    answer = wait_until(
        lambda: browser.execute_script("return !document.querySelector('form') && document.body.innerText")
    )
    assert json.loads(answer) == {"queue": queue, "value": "from the page", "key": f"{queue}:1"}
    assert http.get(f"/q/{queue}").json()["value"] == "from the page"


@pytest.mark.parametrize("path", ["/q/", "/j/{}"])
def test_a_long_queue_name_fits_on_a_phone(
    browser: webdriver.Chrome, daemon: Daemon, http: httpx.Client, queue: str, path: str
) -> None:
    name = queue + "n" * 150
    http.post(f"/q/{name}", data={"value": "v" * 300})
    screen = {"width": 320, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(daemon.url + path.format(name))
    assert name in browser.find_element(By.TAG_NAME, "main").text
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 320


@pytest.fixture
def api_page(page: Page) -> Page:
    page.browser.get(f"{page.url}/api")
    return page


def entries(page: Page, selector: str) -> list[str]:
    """The ids of the operations and shapes that the page shows."""
    return list(page.browser.execute_script(SHOWN + "return shown.map((entry) => entry.id)", selector))


def test_the_search_of_the_api_page_shows_only_matching_operations(api_page: Page) -> None:
    everything = entries(api_page, ".operation")
    search = api_page.find("#find")
    for words, found in (("DELETE receipt", ["delete_m_key"]), ("no-such-word", [])):
        search.clear()
        search.send_keys(words)
        wait_until(lambda found=found: entries(api_page, ".operation:not([id^=shape-])") == found)
        assert api_page.text("#found") == f"{len(entries(api_page, '.operation'))} of {len(everything)}"
    search.send_keys(Keys.CONTROL, "a", Keys.BACKSPACE)
    wait_until(lambda: entries(api_page, ".operation") == everything)
    assert api_page.text("#found") == ""


def test_an_operation_of_the_api_page_has_an_address(api_page: Page) -> None:
    browser = api_page.browser
    api_page.find("#get_q_queue > summary").click()
    wait_until(lambda: browser.current_url == f"{api_page.url}/api#get_q_queue")
    browser.get("about:blank")
    browser.get(f"{api_page.url}/api#get_stats_queue")
    wait_until(lambda: entries(api_page, ".operation[open]") == ["get_stats_queue"])
    assert -1 <= api_page.find("#get_stats_queue").rect["y"] - browser.execute_script("return scrollY") < 900
    api_page.find("#find").send_keys("no-such-word")
    browser.execute_script("location.hash = '#get_q_queue'")
    wait_until(lambda: entries(api_page, ".operation[open]") == ["get_q_queue", "get_stats_queue"])
