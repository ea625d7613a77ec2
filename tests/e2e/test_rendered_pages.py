"""The pages that the server renders: commands at /queue, the API at /api, queues without the dashboard."""

from __future__ import annotations

import json

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.e2e.page import Page
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
    answer = json.loads(browser.find_element(By.TAG_NAME, "pre").text)
    assert answer == {"queue": queue, "value": "from the page", "key": f"{queue}:1"}
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


def shown(page: Page) -> list[str]:
    """The operations and shapes in the list, by id."""
    return [str(entry.get_attribute("id")) for entry in page.all(".operation")]


def test_the_search_of_the_api_page_shows_only_matching_operations(api_page: Page) -> None:
    everything = shown(api_page)
    search = api_page.find("#find")
    search.send_keys("DELETE receipt")
    api_page.wait_for("#found", f" of {len(everything)}")
    assert [entry for entry in shown(api_page) if not entry.startswith("shape-")] == ["delete_m_key"]
    search.clear()
    search.send_keys("no-such-word")
    api_page.wait_for("#found", f"0 of {len(everything)}")
    assert shown(api_page) == []
    search.clear()
    wait_until(lambda: shown(api_page) == everything)
    assert api_page.text("#found") == ""


def test_an_operation_of_the_api_page_has_an_address(api_page: Page) -> None:
    browser = api_page.browser
    api_page.find("#get_q_queue > summary").click()
    wait_until(lambda: browser.current_url == f"{api_page.url}/api#get_q_queue")
    browser.get("about:blank")
    browser.get(f"{api_page.url}/api#get_stats_queue")
    wait_until(lambda: open_operations(api_page) == ["get_stats_queue"])
    assert 0 <= api_page.find("#get_stats_queue").rect["y"] - browser.execute_script("return scrollY") < 900
    api_page.find("#find").send_keys("no-such-word")
    browser.execute_script("location.hash = '#get_q_queue'")
    wait_until(lambda: open_operations(api_page) == ["get_q_queue", "get_stats_queue"])


def open_operations(page: Page) -> list[str]:
    return [entry.get_attribute("id") for entry in page.all(".operation[open]")]  # type: ignore[misc]
