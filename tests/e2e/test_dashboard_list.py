"""The dashboard's list of queues."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.support.select import Select

from tests.e2e.page import Page
from tests.servers import Comet, Daemon, Redis, stopping, wait_until

pytestmark = pytest.mark.needs("chromium", "chromedriver")


@pytest.fixture(scope="module")
def own_daemon(module_folder: Path) -> Iterator[Daemon]:
    """A server whose queues are all from this module."""
    redis = Redis(module_folder / "list")
    daemon = Daemon(module_folder / "list", redis=redis)
    with stopping(daemon, redis):
        yield daemon


@pytest.fixture
def listed(browser: webdriver.Chrome, own_daemon: Daemon) -> tuple[Page, Daemon]:
    return Page(browser, own_daemon.url), own_daemon


def columns(page: Page, queue: str) -> dict[str, str]:
    """The cells of the queue's row, by column, without the name."""
    cells = page.all(f".rows [data-queue='{queue}'] [data-label]")
    return {cell.get_attribute("class").split()[0].removeprefix("c-"): cell.text for cell in cells}


def test_similar_names_stay_readable_next_to_their_condition(listed: tuple[Page, Daemon]) -> None:
    page, daemon = listed
    with daemon.client() as http:
        for name in ("svc-10.queue-00010", "svc-10.queue-00011"):
            http.post(f"/q/{name}", data={"value": "x"})
        http.post("/control/svc-10.queue-00011", data={"status": "stop"})
    page.open()
    page.find("input[type=search]").send_keys("svc-10")
    for name, condition in {"svc-10.queue-00010": "No consumers", "svc-10.queue-00011": "Paused"}.items():
        mark = page.find(f"[data-queue='{name}'] .condition")
        wait_until(lambda mark=mark, condition=condition: mark.get_attribute("title") == condition)
        assert mark.get_property("textContent") == condition
        for width in (1280, 1100, 1024, 768):
            page.look_like(width)
            shown = page.find(f"[data-queue='{name}'] .c-name a")
            assert page.browser.execute_script("return arguments[0].scrollWidth <= arguments[0].clientWidth", shown)
        page.look_like(390)
        page.wait_for(f"[data-queue='{name}']", condition)


def test_narrow_screens_keep_the_important_columns(listed: tuple[Page, Daemon]) -> None:
    page, daemon = listed
    with daemon.client() as http:
        http.post("/p/mail", data={"policy": "roundrobin"})
        for _ in range(2):
            http.post("/q/mail", data={"value": "x"})
        http.get("/q/mail?lease=1000")
    stream = Comet(daemon, "/c/mail-other")
    page.open()
    page.find("input[type=search]").send_keys("mail")
    page.wait_for(".rows", "mail")
    page.wait_for(".rows", "mail-other")
    for width in (1280, 1270, 1131, 1130, 1024, 941, 940, 768, 701):
        page.look_like(width)
        assert {"ready", "dead", "waiters", "oldest", "policy"} <= columns(page, "mail").keys(), width
        assert {"consumers", "comet"} & columns(page, "mail").keys(), width
    page.look_like(390)
    assert columns(page, "mail").keys() == {"ready", "leased", "oldest", "policy"}
    assert columns(page, "mail")["policy"] == "round robin"
    assert columns(page, "mail-other")["comet"] == "1"
    Select(page.find("select[aria-label='Sort by']")).select_by_value("dead")
    wait_until(lambda: columns(page, "mail").keys() == {"ready", "leased", "dead", "oldest", "policy"})
    stream.close()


def test_going_back_restores_the_list(listed: tuple[Page, Daemon]) -> None:
    page, daemon = listed
    with daemon.client() as http:
        for number in range(60):
            http.post(f"/q/queue-{number:02}", data={"value": "x"})
    page.open()
    page.find(".c-name .head").click()
    page.find("input[type=search]").send_keys("queue-")
    page.press("With messages")
    page.browser.execute_script("window.scrollTo(0, 1200)")
    page.find("[data-queue=queue-40] a").click()
    wait_until(lambda: page.text("h1") == "queue-40")
    page.browser.back()
    page.find("[data-queue=queue-40] a")
    assert page.find("input[type=search]").get_attribute("value") == "queue-"
    assert page.find("[data-filter=waiting]").get_attribute("aria-pressed") == "true"
    assert page.find("[aria-sort=ascending]").text.startswith("Queue")
    assert page.browser.execute_script("return window.scrollY") == 1200


def test_consumers_and_long_polls_are_counted_separately(listed: tuple[Page, Daemon]) -> None:
    page, daemon = listed
    stream = Comet(daemon, "/c/jobs")
    with httpx.Client(base_url=daemon.url, timeout=70) as http:
        poll = threading.Thread(target=http.get, args=("/q/jobs-2?wait=60",))
        poll.start()
        page.open()
        page.wait_for_figure("consumers", "1+ 1 poll")
        page.open("jobs")
        page.wait_for_figure("consumers", "1")
        page.open("jobs-2")
        page.wait_for_figure("consumers", "0+ 1 poll")
        http.post("/q/jobs-2", data={"value": "x"})
        poll.join()
    stream.close()
