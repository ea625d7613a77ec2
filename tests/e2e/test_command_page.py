"""The page at /queue, on which commands can be tried."""

from __future__ import annotations

import json

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.servers import Daemon

pytestmark = pytest.mark.needs("chromium", "chromedriver")


def test_a_command_is_run(browser: webdriver.Chrome, daemon: Daemon, http: httpx.Client, queue: str) -> None:
    browser.get(f"{daemon.url}/queue")
    field = browser.find_element(By.ID, "body")
    field.clear()
    field.send_keys(json.dumps({"cmd": "add", "queue": queue, "value": "from the page"}))
    browser.find_element(By.TAG_NAME, "button").click()
    answer = json.loads(browser.find_element(By.TAG_NAME, "pre").text)
    assert answer == {"queue": queue, "value": "from the page", "key": f"{queue}:1"}
    assert http.get(f"/q/{queue}").json()["value"] == "from the page"


@pytest.mark.parametrize("path", ["/q/", "/j/{}"])
def test_a_long_name_stays_on_the_page(
    browser: webdriver.Chrome, daemon: Daemon, http: httpx.Client, queue: str, path: str
) -> None:
    name = queue + "n" * 150
    http.post(f"/q/{name}", data={"value": "v" * 300})
    screen = {"width": 320, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(daemon.url + path.format(name))
    assert name in browser.find_element(By.TAG_NAME, "main").text
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 320
