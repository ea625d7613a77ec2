"""Saving settings on a queue's page: only what the user changed is saved."""

from __future__ import annotations

import httpx
import pytest
from selenium import webdriver

from tests.e2e.page import Page
from tests.servers import Daemon, wait_until

pytestmark = pytest.mark.needs("chromium", "chromedriver")

SET = {"lease": 99, "max_deliveries": 5, "history": 10, "dead_letter": "grave"}


def wait_for_setting(page: Page, setting: str, value: object) -> None:
    shown = page.find(f"#setting-{setting}")
    wait_until(lambda: shown.get_attribute("value") == str(value), why=f"{setting} is {value}")


def type_setting(page: Page, setting: str, value: str) -> None:
    wait_until(page.find(f"#setting-{setting}").is_enabled, why=f"{setting} can be changed")
    page.find(f"#setting-{setting}").clear()
    page.find(f"#setting-{setting}").send_keys(value)


def save(page: Page) -> None:
    page.press("Save")
    page.wait_for("#notice", "Saved.")


def test_a_page_opened_during_an_outage_saves_only_typed_settings(
    browser: webdriver.Chrome, mortal: Daemon, http: httpx.Client, queue: str
) -> None:
    http.post(f"/q/{queue}", data={"value": "x"})
    http.post(f"/p/{queue}", data=SET)
    page = Page(browser, mortal.url)
    page.open()
    page.find("input[type=search]").send_keys(queue)
    page.wait_for(".rows", queue)
    mortal.stop()
    page.wait_for_state("Server unavailable")
    page.find(".rows a").click()
    page.wait_for(".settings", "Not loaded from the server yet")
    assert not page.find("#setting-lease").is_enabled()
    assert not page.button("Save").is_enabled()
    mortal.start()
    page.wait_for_state("Live")
    wait_for_setting(page, "lease", 99)
    type_setting(page, "max_length", "1000")
    save(page)
    assert http.get(f"/p/{queue}").json() == {"queue": queue, "value": "broadcast", **SET, "max_length": 1000}


def test_saving_keeps_settings_changed_by_another_client(page: Page, http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data=SET)
    page.open(queue)
    wait_for_setting(page, "lease", 99)
    http.post(f"/p/{queue}", data={"max_deliveries": "7", "dead_letter": "cellar"})
    type_setting(page, "lease", "60")
    save(page)
    wanted = {**SET, "lease": 60, "max_deliveries": 7, "dead_letter": "cellar"}
    assert http.get(f"/p/{queue}").json() == {"queue": queue, "value": "broadcast", **wanted}
    wait_for_setting(page, "max_deliveries", 7)


def test_reloading_settings_keeps_unsaved_input(page: Page, http: httpx.Client, queue: str) -> None:
    http.post(f"/q/{queue}", data={"value": "x"})
    page.open(queue)
    type_setting(page, "lease", "60")
    http.post(f"/p/{queue}", data={"policy": "roundrobin", "history": "3"})
    wait_for_setting(page, "policy", "roundrobin")
    wait_for_setting(page, "history", 3)
    wait_for_setting(page, "lease", 60)
    page.press("Save")
    wait_until(lambda: http.get(f"/p/{queue}").json().get("lease") == 60)
    assert http.get(f"/p/{queue}").json() == {"queue": queue, "value": "roundrobin", "history": 3, "lease": 60}
