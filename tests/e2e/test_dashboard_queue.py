"""A queue's page with unusual names and numbers, and with keyboard use."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.e2e.page import Page
from tests.servers import Daemon, Redis, wait_until
from tests.sqs.clients import connect

pytestmark = pytest.mark.needs("chromium", "chromedriver")

TAIL = "section[aria-labelledby=tail-title]"


def shown_name(page: Page, selector: str) -> str:
    """The name as the page shows it, with all its blanks."""
    return str(page.browser.execute_script("return document.querySelector(arguments[0]).innerText", selector))


def test_a_name_with_blanks_is_shown_exactly_and_can_be_purged(page: Page, http: httpx.Client, queue: str) -> None:
    name = f" {queue}  x "
    http.post(f"/q/{name.replace(' ', '%20')}", data={"value": "x"})
    page.open()
    page.find("input[type=search]").send_keys(queue)
    page.find(".rows a").click()
    wait_until(lambda: shown_name(page, "h1") == name)
    assert len(page.all("h1 .blank")) == 3
    page.wait_for_figure("ready", "1")
    page.press("Purge or remove…")
    assert shown_name(page, "dialog code") == name
    page.find("#purge-name").send_keys(name)
    page.press("Purge", "dialog")
    page.wait_for_figure("ready", "0")


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_no_browser_can_request_is_explained(page: Page, http: httpx.Client, name: str) -> None:
    http.post("/queue", json={"cmd": "add", "queue": name, "value": "x"})
    page.open(name)
    page.wait_for(".queue-page", "Use the command line: restmq.")
    page.wait_for(".notes", "message")
    assert page.offered() & {"Publish", "Pause", "Purge or remove…"} == set()
    assert page.all(".panel") == []


def test_leaving_the_page_closes_the_purge_dialog(page: Page, http: httpx.Client, queue: str) -> None:
    for name in (queue, f"{queue}-2"):
        http.post(f"/q/{name}", data={"value": "x"})
    page.open(queue)
    page.open(f"{queue}-2")
    page.press("Purge or remove…")
    page.find("dialog")
    page.browser.back()
    wait_until(lambda: page.text("h1") == queue)
    assert page.browser.find_elements(By.TAG_NAME, "dialog") == []


def test_all_messages_can_be_paged_through(page: Page, http: httpx.Client, queue: str) -> None:
    lines = "\n".join(f'"{number}"' for number in range(250))
    http.post(f"/q/{queue}", content=lines, headers={"Content-Type": "application/x-ndjson"})
    page.open(queue)
    page.wait_for(".chart", "300")
    page.press("Show more", "#messages")
    page.wait_for(".pages", "1 to 100 of 250")
    assert not page.button("Previous page").is_enabled()
    page.press("Next page")
    page.wait_for(".pages", "101 to 200 of 250")
    page.press("Next page")
    page.wait_for_messages([f"{number + 1} {number}" for number in range(200, 250)])
    assert not page.button("Next page").is_enabled()
    http.get(f"/q/{queue}?count=100")
    page.wait_for(".pages", "101 to 150 of 150")
    page.press("Previous page")
    page.wait_for_messages([f"{number + 1} {number}" for number in range(100, 200)])


def test_escape_does_not_end_a_live_tail(page: Page, redis: Redis, http: httpx.Client, queue: str) -> None:
    page.open(queue)
    page.watch("lines")
    page.find("body").send_keys(Keys.ESCAPE)
    http.post(f"/q/{queue}", data={"value": "heard"})
    page.wait_for_messages(["1 heard"], ".tail")
    assert page.text("h1") == queue
    page.press("Stop", TAIL)
    page.find("body").send_keys(Keys.ESCAPE)
    page.find(".tools")


def test_an_empty_file_is_an_empty_message(page: Page, http: httpx.Client, queue: str, private_folder: Path) -> None:
    (private_folder / "empty").touch()
    page.open(queue)
    page.find("input[value=file]").click()
    page.browser.find_element(By.ID, "publish-file").send_keys(str(private_folder / "empty"))
    page.press("Publish", ".publish")
    page.wait_for_messages(["1 (empty)"])
    http.post("/queue", json={"cmd": "get", "queue": queue})
    page.press("Refresh")

    def opened_message() -> str:
        # Refreshing replaces the list, perhaps just after the message was opened.
        page.browser.execute_script("document.querySelector('#messages li details').open = true")
        return page.text("#messages")

    wait_until(lambda: "peeked at 1 time" in opened_message())
    assert "1 times" not in page.text("#messages")


def test_chart_scales_are_whole_numbers(page: Page, http: httpx.Client, queue: str) -> None:
    for number in range(6):
        http.post(f"/q/{queue}", data={"value": str(number)})
    page.open(queue)
    page.wait_for_figure("ready", "6")
    wait_until(lambda: page.text(".chart .depth-most") == "10")


def test_attributes_tags_and_locked_groups_of_sqs_are_shown(
    page: Page, daemon: Daemon, http: httpx.Client, queue: str
) -> None:
    sqs, name = connect(daemon.port), f"{queue}.fifo"
    made = sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"}, tags={"team": "birds"})
    http.post(f"/q/{name}", content="x", headers={"Content-Type": "text/plain", "X-Message-Group": "owls"})
    page.open(name)
    page.wait_for("#sqs", "birds")
    page.wait_for("#sqs", "1 free group, 0 locked")
    sqs.receive_message(QueueUrl=made["QueueUrl"])
    page.wait_for("#sqs", "owls")
    page.open(queue)
    page.wait_for_figure("ready", "0")
    assert not page.browser.find_element(By.ID, "sqs").is_displayed()


def test_a_message_shows_what_it_was_sent_with(page: Page, daemon: Daemon, http: httpx.Client, queue: str) -> None:
    sqs = connect(daemon.port)
    url = sqs.create_queue(QueueName=queue)["QueueUrl"]
    sent = {"Colour": {"DataType": "String", "StringValue": "red"}, "size": {"DataType": "Number", "StringValue": "7"}}
    sqs.send_message(QueueUrl=url, MessageBody="x", MessageAttributes=sent)
    http.post(f"/q/{queue}", content="y", headers={"Content-Type": "text/css", "X-Message-Kind": "sheet"})
    page.open(queue)
    for number, shown in ((1, ("Colour", "red", "7 (Number)")), (2, ("text/css", "x-message-kind", "sheet"))):
        page.find(f'.messages li[data-key="{queue}:{number}"] summary').click()
        for text in shown:
            page.wait_for(f'.messages li[data-key="{queue}:{number}"] .known', text)
