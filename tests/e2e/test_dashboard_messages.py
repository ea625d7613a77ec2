"""Single messages on the dashboard: their details, what can be done with them, and the search."""

from __future__ import annotations

import threading

import httpx
import pytest
from selenium.webdriver.common.action_chains import ActionChains

from tests.e2e.page import Page
from tests.e2e.test_dashboard import dead_letters
from tests.servers import Daemon, wait_until

pytestmark = pytest.mark.needs("chromium", "chromedriver")

FIRST = "#messages li[data-key]:first-child"


def test_a_message_shows_when_it_was_published_its_headers_and_why_it_failed(
    page: Page, http: httpx.Client, queue: str
) -> None:
    http.post(f"/q/{queue}", content="x", headers={"Content-Type": "text/csv", "X-Message-Tenant": "acme"})
    message = http.get(f"/q/{queue}?lease=1000").json()
    http.post("/m/" + message["key"], data={"receipt": message["receipt"], "lease": "0", "reason": "no luck"})
    page.open(queue)
    page.wait_for_messages(["1 x"])
    page.find(f"{FIRST} summary").click()
    day = page.browser.execute_script("return new Date(arguments[0]).toLocaleDateString('sv-SE')", message["sent"])
    page.wait_for(".message-body .reason", f"Failed {day} ")
    facts = page.text(".known").split("\n")
    values = dict(zip(facts[::2], facts[1::2], strict=True))
    assert values.keys() == {"Published", "First delivery", "content-type", "x-message-tenant"}
    assert values["Published"].startswith(day)
    assert (values["content-type"], values["x-message-tenant"]) == ("text/csv", "acme")


def test_a_dead_letter_is_moved_to_another_queue(page: Page, http: httpx.Client, queue: str) -> None:
    dead_letters(http, queue, 2)
    page.open(queue)
    page.press("Show", ".notes")
    page.wait_for_messages(["1 letter 0", "2 letter 1"])
    page.find(f"{FIRST} summary").click()
    page.find(f"{FIRST} form input").send_keys(f"{queue}-2")
    page.press("Move to", FIRST)
    page.wait_for_messages(["2 letter 1"])
    assert http.get(f"/q/{queue}-2").json()["value"] == "letter 0"


def test_a_delayed_message_is_promoted(page: Page, http: httpx.Client, queue: str) -> None:
    http.post(f"/q/{queue}", data={"value": "later", "delay": "1000"})
    page.open(queue)
    page.press("Delayed", ".figures")
    page.wait_for_messages(["1 later"])
    page.find(f"{FIRST} summary").click()
    page.press("Promote", FIRST)
    page.wait_for_figure("ready", "1")
    assert http.get(f"/q/{queue}").json()["value"] == "later"


@pytest.mark.parametrize("place", ["next", "newest", "leased", "delayed"])
def test_a_single_message_is_dropped_but_not_by_a_double_click(
    page: Page, http: httpx.Client, queue: str, place: str
) -> None:
    for value in ("a", "b"):
        http.post(f"/q/{queue}", data={"value": value, "delay": "1000" if place == "delayed" else "0"})
    if place == "leased":
        http.get(f"/q/{queue}?lease=1000&count=2")
    page.open(queue)
    page.find(f"#tab-{place}").click()
    wait_until(lambda: len(page.messages()) == 2)
    kept = page.messages()[1]
    page.find(f"{FIRST} summary").click()
    ActionChains(page.browser).double_click(page.button("Drop", FIRST)).perform()
    page.press("Drop", FIRST)
    page.wait_for_messages([kept])
    assert http.get(f"/stats/{queue}").json()["totals"]["in"] == 2


def test_messages_are_found_by_text_key_and_header(page: Page, http: httpx.Client, queue: str) -> None:
    lines = "\n".join(f'"job {number}"' for number in range(60))
    http.post(f"/q/{queue}", content=lines, headers={"Content-Type": "application/x-ndjson"})
    http.post(f"/q/{queue}", content="x", headers={"X-Message-Tenant": "acme"})
    page.open(queue)
    search = page.find("#messages input[type=search]")
    search.send_keys("JOB 5")
    page.wait_for_messages([f"{number + 1} job {number}" for number in (5, *range(50, 60))])
    page.wait_for(".find", "11 of 61 messages")
    search.clear()
    search.send_keys("acme")
    page.wait_for_messages(["61 x"])
    search.send_keys("?")
    page.wait_for("#messages", "No shown message has this text.")


def test_a_queue_with_a_worker_has_consumers_also_between_two_polls(page: Page, http: httpx.Client, queue: str) -> None:
    http.post(f"/q/{queue}", data={"value": "a"})
    page.open(queue)
    page.wait_for(".notes", "No consumers.")
    http.get(f"/q/{queue}")
    poll = threading.Thread(target=http.get, args=(f"/q/{queue}?wait=60",), kwargs={"timeout": 70})
    poll.start()
    page.wait_for_figure("consumers", "0+ 1 poll")
    panel = "section[aria-labelledby=consumers-title]"
    page.wait_for(f"{panel} tbody", "Long poll")
    assert "127.0.0.1" in page.text(f"{panel} tbody")
    http.post(f"/q/{queue}", data={"value": "b"})
    poll.join()
    http.post(f"/q/{queue}", data={"value": "c"})
    page.wait_for_figure("ready", "1")
    page.wait_for(panel, "No client is connected now, but one took messages in the last minute.")
    http.get(f"/q/{queue}?lease=60")
    page.wait_for(panel, "No client is connected now, but 1 message is leased.")
    assert page.text(".notes") == ""
    page.find("a.back").click()
    page.press("Consumers", ".filters")
    page.find(f".rows [data-queue='{queue}']")


def test_figures_lead_to_the_queues_that_they_count(page: Page, http: httpx.Client, queue: str) -> None:
    http.post(f"/q/{queue}", data={"value": "x"})
    dead_letters(http, f"{queue}-dead", 1)
    page.open()
    page.find("input[type=search]").send_keys(queue)
    page.find(f".rows [data-queue='{queue}']")
    page.press("Dead", ".figures")
    page.find(f".rows [data-queue='{queue}-dead']")
    wait_until(lambda: not page.all(f".rows [data-queue='{queue}']"))


def test_all_pages_have_the_same_navigation_and_an_open_server_offers_no_sign_in(page: Page, daemon: Daemon) -> None:
    page.open()
    links = page.text(".bar nav")
    assert page.all("#sign-in") == []
    for path in ("/q/", "/queue", "/api", "/j/x"):
        page.browser.get(daemon.url + path)
        assert page.text(".bar nav") == links, path


def test_the_menu_marks_the_page_that_is_shown(page: Page, http: httpx.Client, queue: str) -> None:
    http.post(f"/q/{queue}", data={"value": "x"})

    def marked() -> list[tuple[str, str | None]]:
        return [(link.text, link.get_attribute("aria-current")) for link in page.all(".bar nav a[aria-current]")]

    page.open()
    assert marked() == [("Dashboard", "page")]
    page.find(f".rows [data-queue='{queue}'] a").click()
    wait_until(lambda: marked() == [("Dashboard", "true")], why="a queue's page is below the dashboard")
    page.find("nav a[href$='#/servers']").click()
    wait_until(lambda: marked() == [("Servers", "page")])
    for path, name in (("q/", "Queues"), ("queue", "Commands"), ("api", "API")):
        page.find(f"nav a[href$='/{path}']").click()
        wait_until(lambda name=name: marked() == [(name, "page")])
