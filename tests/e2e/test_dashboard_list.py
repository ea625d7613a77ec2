"""The dashboard's list of queues."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
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
        assert {"ready", "in", "out", "oldest", "policy"} <= columns(page, "mail").keys(), width
        assert {"consumers", "comet"} & columns(page, "mail").keys(), width
    page.look_like(390)
    assert columns(page, "mail").keys() == {"ready", "leased", "oldest", "policy"}
    assert columns(page, "mail")["policy"] == "round robin"
    assert columns(page, "mail-other")["comet"] == "1"
    Select(page.find("#sort")).select_by_value("dead")
    wait_until(lambda: columns(page, "mail").keys() == {"ready", "leased", "dead", "oldest", "policy"})
    stream.close()


@pytest.fixture
def fresh(browser: webdriver.Chrome, private_folder: Path) -> Iterator[tuple[Page, Daemon]]:
    """The dashboard of a server without queues."""
    redis = Redis(private_folder / "redis")
    daemon = Daemon(private_folder / "daemon", redis=redis)
    with stopping(daemon, redis):
        yield Page(browser, daemon.url), daemon


def heads(page: Page) -> dict[str, int]:
    """The headings that are shown, each with the number that a screen reader gives to its column."""
    shown = page.all(".heads [role=columnheader]")
    return {head.text.split(" ↓")[0]: int(head.get_attribute("aria-colindex") or 0) for head in shown}


def test_columns_without_a_value_are_folded_until_one_appears(fresh: tuple[Page, Daemon]) -> None:
    page, daemon = fresh
    with daemon.client() as http:
        http.post("/p/mail", data={"max_deliveries": "1"})
        http.post("/q/mail", data={"value": "x"})
        page.open()
        page.wait_for(".rows", "mail")
        before = heads(page)
        assert {"Queue", "Waiting", "Oldest", "Policy"} <= before.keys()
        assert not {"Leased", "Delayed", "Dead", "Comet", "SSE", "WS", "Consumers", "Polls"} & before.keys()
        message = http.get("/q/mail?lease=1000").json()
        wait_until(lambda: columns(page, "mail").get("leased") == "1")
        http.post("/m/" + message["key"], data={"receipt": message["receipt"], "lease": "0"})
        wait_until(lambda: columns(page, "mail").get("dead") == "1")
        stream = Comet(daemon, "/c/mail")
        wait_until(lambda: columns(page, "mail").get("comet") == "1")
        after = heads(page)
        assert {name: after[name] for name in before} == before, "the numbers of the other columns stay"
        assert page.find("[role=table]").get_attribute("aria-colcount") == "15"
        for cell in page.all("[data-queue=mail] [data-label]"):
            name = cell.get_attribute("data-label")
            assert int(cell.get_attribute("aria-colindex") or 0) == after[name or ""]
        stream.close()


#: Turns the page's clock by this number of milliseconds. Its timers go on as before.
TURN = """
const [milliseconds] = arguments;
const { now } = performance;
performance.now = () => now.call(performance) + milliseconds;
"""


def test_a_column_folds_only_when_it_has_had_no_value_for_a_minute(fresh: tuple[Page, Daemon]) -> None:
    page, daemon = fresh
    with daemon.client() as http:
        http.post("/p/mail", data={"policy": "roundrobin"})
        http.post("/q/mail", data={"value": "x"})
        page.open()
        message = http.get("/q/mail?lease=1000").json()
        wait_until(lambda: columns(page, "mail").get("leased") == "1")
        page.browser.execute_script(TURN, 600_000)
        http.post("/q/mail", data={"value": "y"})
        wait_until(lambda: columns(page, "mail")["ready"] == "1", why="the page is up to date ten minutes later")
        assert columns(page, "mail")["leased"] == "1"
        http.delete("/m/" + message["key"], params={"receipt": message["receipt"]})
        wait_until(lambda: columns(page, "mail")["leased"] == "0")
        page.browser.execute_script(TURN, 10_000)
        http.post("/q/mail", data={"value": "z"})
        wait_until(lambda: columns(page, "mail")["ready"] == "2")
        assert columns(page, "mail")["leased"] == "0", "ten seconds later"
        page.browser.execute_script(TURN, 50_000)
        wait_until(lambda: "leased" not in columns(page, "mail"), why="a minute later")
        assert "Leased" not in heads(page)


def test_the_column_that_the_list_is_sorted_by_is_never_folded(fresh: tuple[Page, Daemon]) -> None:
    page, daemon = fresh
    with daemon.client() as http:
        http.post("/q/mail", data={"value": "x"})
    page.look_like(390)
    page.open()
    Select(page.find("#sort")).select_by_value("dead")
    page.look_like(1280)
    wait_until(lambda: columns(page, "mail").get("dead") == "0")
    page.find(".c-name .head").click()
    page.look_like(390)
    page.wait_for(".rows", "mail")
    assert "dead" not in columns(page, "mail")


def order(page: Page) -> list[str | None]:
    return [row.get_attribute("data-queue") for row in page.all(".rows .queue-row")]


def test_rows_keep_their_places_under_the_pointer_and_the_list_says_so(fresh: tuple[Page, Daemon]) -> None:
    page, daemon = fresh
    with daemon.client() as http:
        for name in ("first", "first", "second"):
            http.post(f"/q/{name}", data={"value": "x"})
        page.open()
        wait_until(lambda: order(page) == ["first", "second"])
        ActionChains(page.browser).move_to_element(page.find("[data-queue=first] .c-in")).perform()
        for _ in range(2):
            http.post("/q/second", data={"value": "x"})
        page.wait_for(".heads", "Rows keep their places under the pointer")
        assert order(page) == ["first", "second"]
        ActionChains(page.browser).move_to_element(page.find(".figures")).perform()
        wait_until(lambda: order(page) == ["second", "first"])
        assert "keep their places" not in page.text(".heads")


NAMES = (
    "svc-10.queue-00010",
    "billing.invoices.reminders.third-notice.dead-letters-eu",
    "zahlungserinnerungen/kunden/übersicht:monatlich",
)


@pytest.mark.parametrize("width", [1280, 390])
def test_names_of_sixty_characters_are_not_cut(fresh: tuple[Page, Daemon], width: int) -> None:
    page, daemon = fresh
    with daemon.client() as http:
        http.post("/p/busy", data={"max_deliveries": "1"})
        for _ in range(3):
            http.post("/q/busy", data={"value": "x"})
        for _ in range(2):
            message = http.get("/q/busy?lease=1000").json()
        http.post("/m/" + message["key"], data={"receipt": message["receipt"], "lease": "0"})
        http.post("/q/busy", data={"value": "x", "delay": "1000"})
        for name in NAMES:
            http.post(f"/q/{name.replace('/', '%2F')}", data={"value": "x"})
        streams = [Comet(daemon, f"/{kind}/busy") for kind in ("c", "sse")]
        page.look_like(width)
        page.open()
        for name in NAMES:
            shown = page.find(f"[data-queue='{name}'] .c-name a")
            fits = "const a = arguments[0]; return a.scrollWidth <= a.clientWidth && a.scrollHeight <= a.clientHeight"
            assert page.browser.execute_script(fits, shown), name
        for stream in streams:
            stream.close()


def test_nothing_is_cut_or_out_of_sight_on_a_phone(fresh: tuple[Page, Daemon]) -> None:
    page, daemon = fresh
    with daemon.client() as http:
        http.post("/p/mail", data={"max_deliveries": "1"})
        for _ in range(1200):
            http.post("/q/mail", data={"value": "x"})
        message = http.get("/q/mail?lease=1000").json()
        why = "the mailbox is unavailable, and its owner left no other address"
        http.post("/m/" + message["key"], data={"receipt": message["receipt"], "lease": "0", "reason": why})
    page.look_like(390)
    page.open("mail")
    page.wait_for("#tab-dead", "Dead 1")
    page.find("#tab-dead").click()
    page.find("#messages .reason")
    assert page.browser.execute_script("return document.documentElement.scrollWidth") <= 390
    for tab in page.all("[role=tab]"):
        assert tab.rect["x"] >= 0 and tab.rect["x"] + tab.rect["width"] <= 390, tab.text
    fits = (
        "const [field] = arguments, style = getComputedStyle(field), pen = new OffscreenCanvas(1, 1).getContext('2d');"
        "pen.font = style.font;"
        "const room = field.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);"
        "return pen.measureText(field.placeholder).width <= room"
    )
    assert page.browser.execute_script(fits, page.find("#messages input[type=search]"))
    page.find(".back").click()
    for button in page.all(".filter"):
        assert button.rect["x"] >= 0 and button.rect["x"] + button.rect["width"] <= 390, button.text
    for link in page.all(".bar nav a"):
        assert link.rect["x"] + link.rect["width"] <= 390, link.text
    assert page.browser.execute_script("return document.documentElement.scrollWidth") <= 390


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
