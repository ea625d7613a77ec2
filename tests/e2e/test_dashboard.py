"""The dashboard: queues, messages, settings, outages, screen sizes and accessibility."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.e2e.page import Page
from tests.integration.conftest import Run, core, run  # noqa: F401  fixtures
from tests.servers import Comet, Daemon, Redis, stopping, wait_until

pytestmark = pytest.mark.needs("chromium", "chromedriver")


def dead_letters(http: httpx.Client, queue: str, count: int) -> None:
    """Publishes ``count`` messages and makes them dead letters."""
    http.post(f"/p/{queue}", data={"max_deliveries": "1"})
    for number in range(count):
        http.post(f"/q/{queue}", data={"value": f"letter {number}"})
    for message in http.get(f"/q/{queue}?lease=1000&count={count}").json():
        http.post("/m/" + message["key"], data={"receipt": message["receipt"], "lease": "0", "reason": "no luck"})


def test_consumers_of_several_servers_are_listed_with_their_server(
    page: Page, daemon: Daemon, mortal: Daemon, queue: str
) -> None:
    consumers = "section[aria-labelledby=consumers-title]"
    first = Comet(daemon, f"/c/{queue}")
    page.open(queue)
    page.wait_for(consumers, "127.0.0.1")
    assert "server" not in page.text(consumers).lower()
    second = Comet(mortal, f"/sse/{queue}")
    page.wait_for(consumers, f":{mortal.process.pid}")
    assert "server" in page.text(consumers).lower()
    assert "1 Comet, 1 SSE" in page.text(consumers)
    for stream in (first, second):
        stream.close()


def taps(redis: Redis, queue: str) -> int:
    """Number of daemons with taps on the queue."""
    return int(redis.command("PUBSUB", "NUMSUB", f"{queue}:PUBSUB:TAP")[1])


@pytest.mark.parametrize("transport", ["lines", "sse", "websocket"])
def test_the_live_tail_shows_a_message_published_in_the_page_and_takes_none(
    page: Page, redis: Redis, http: httpx.Client, queue: str, transport: str
) -> None:
    http.post(f"/p/{queue}", data={"policy": "roundrobin"})
    page.open(queue)
    page.wait_for(".notes", "This queue does not exist.")
    page.watch(transport)
    field = page.find("#publish-text")
    field.send_keys("two", Keys.ENTER, "lines é")
    page.press("Publish", ".publish")
    page.wait_for_messages(["1 two lines é"], ".tail")
    page.wait_for_messages(["1 two lines é"])
    page.wait_for(".notes", "No consumers.")
    page.press("Stop", "section[aria-labelledby=tail-title]")
    wait_until(lambda: taps(redis, queue) == 0)
    assert http.get(f"/q/{queue}").json()["value"] == "two\nlines é"


def test_json_and_files_are_published_byte_for_byte(
    page: Page, http: httpx.Client, queue: str, private_folder: Path
) -> None:
    page.open(queue)
    page.find("input[value=json]").click()
    page.find("#publish-text").send_keys('{"n": 12345678901234567890')
    page.press("Publish", ".publish")
    page.wait_for(".publish .problem", "This is not JSON")
    page.find("#publish-text").send_keys(', "a": []}')
    page.press("Publish", ".publish")
    page.wait_for_figure("ready", "1")
    photo = private_folder / "photo.jpg"
    photo.write_bytes(bytes(range(256)))
    page.find("input[value=file]").click()
    page.browser.find_element(By.ID, "publish-file").send_keys(str(photo))
    page.press("Publish", ".publish")
    page.wait_for_messages([
        '1 {"n": 12345678901234567890, "a": []}',
        "2 bytes: " + " ".join(f"{byte:02x}" for byte in range(33)),
    ])  # fmt: skip
    page.find("#messages li:first-child summary").click()
    wait_until(lambda: page.text("#messages .value") == '{\n  "n": 12345678901234567890,\n  "a": []\n}')
    octets = {"Accept": "application/octet-stream"}
    assert http.get(f"/q/{queue}", headers=octets).content == b'{"n": 12345678901234567890, "a": []}'
    assert http.get(f"/q/{queue}", headers=octets).content == bytes(range(256))


def test_a_queue_is_paused_and_started(page: Page, daemon: Daemon, http: httpx.Client, queue: str) -> None:
    listener = Comet(daemon, f"/c/{queue}")
    page.open(queue)
    page.press("Pause")
    page.wait_for(".notes", "Paused")
    http.post(f"/q/{queue}", data={"value": "held"})
    page.wait_for_figure("ready", "1")
    page.press("Start")
    page.wait_for(".state", "Started")
    assert json.loads(listener.lines(1)[0])["value"] == "held"
    page.wait_for_figure("ready", "0")
    listener.close()


def test_a_queue_is_purged_after_its_name_is_typed(page: Page, http: httpx.Client, queue: str) -> None:
    for value in ("a", "b"):
        http.post(f"/q/{queue}", data={"value": value})
    page.open(queue)
    page.wait_for_messages(["1 a", "2 b"])
    page.press("Purge or remove…")
    field = page.find("dialog input")
    field.send_keys(queue[:-1])
    assert not page.button("Purge", "dialog").is_enabled()
    field.send_keys(queue[-1])
    page.press("Purge", "dialog")
    page.wait_for_figure("ready", "0")
    page.wait_for_messages([])
    page.wait_for("#messages", "No message waits.")


def test_a_queue_is_removed_and_the_page_says_that_it_does_not_exist(
    page: Page, http: httpx.Client, queue: str
) -> None:
    http.post(f"/q/{queue}", data={"value": "a"})
    http.post(f"/p/{queue}", data={"lease": "99"})
    page.open(queue)
    page.wait_for_figure("ready", "1")
    page.press("Purge or remove…")
    page.find("#purge-name").send_keys(queue)
    page.find("#purge-remove").click()
    page.press("Purge and remove", "dialog")
    page.wait_for(".notes", "This queue does not exist.")
    assert http.get(f"/p/{queue}").json() == {"queue": queue, "value": "broadcast"}
    assert queue not in http.get("/stats/").json()["queues"]


def test_dead_letters_are_redriven_and_dropped(page: Page, http: httpx.Client, queue: str) -> None:
    dead_letters(http, queue, 4)
    page.open(queue)
    page.wait_for(".notes", "4 dead letters")
    page.find("#tab-dead").click()
    page.wait_for_messages([f"{number + 1} letter {number}" for number in range(4)])
    page.wait_for("#messages .facts .reason", "no luck")
    page.find("#messages li:first-child summary").click()
    page.wait_for("#messages .message-body", ": no luck")
    page.press("Redrive", "#messages li")
    page.wait_for_figure("ready", "1")
    page.wait_for_messages(["2 letter 1", "3 letter 2", "4 letter 3"])
    page.find("#messages li:first-child summary").click()
    page.press("Drop", "#messages li")
    page.press("Drop for good?", "#messages li")
    page.wait_for_messages(["3 letter 2", "4 letter 3"])
    page.wait_for_figure("dead", "2")
    page.press("Redrive all")
    page.press("Redrive 2 dead letters?")
    page.wait_for_figure("dead", "0")
    assert [http.get(f"/q/{queue}").json()["key"] for _ in range(3)] == [f"{queue}:{n}" for n in (1, 3, 4)]


def test_leased_and_delayed_messages_show_the_remaining_time(page: Page, http: httpx.Client, queue: str) -> None:
    for delay in ("0", "1000"):
        http.post(f"/q/{queue}", data={"value": "x", "delay": delay})
    http.get(f"/q/{queue}?lease=1000")
    page.open(queue)
    page.find("#tab-leased").click()
    page.wait_for("#messages", "lease ends in 16 min")
    page.find("#tab-leased").send_keys(Keys.ARROW_RIGHT)
    page.wait_for("#messages", "ready in 16 min")


def test_policy_and_settings_are_shown_and_changed(page: Page, http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"max_length": "7"})
    page.open(queue)
    wait_until(lambda: page.find("#setting-max_length").get_attribute("value") == "7")
    Select(page.find("#setting-policy")).select_by_value("roundrobin")
    page.find("#setting-lease").send_keys("20")
    page.find("#setting-max_length").clear()
    page.find("#setting-dead_letter").send_keys(f"{queue}-dead")
    page.press("Save")
    page.wait_for(".state", "round robin")
    wanted = {"queue": queue, "value": "roundrobin", "lease": 20, "dead_letter": f"{queue}-dead"}
    assert http.get(f"/p/{queue}").json() == wanted


def test_the_dashboard_reconnects_after_a_server_restart(
    browser: webdriver.Chrome, mortal: Daemon, daemon: Daemon, redis: Redis, queue: str
) -> None:
    page = Page(browser, mortal.url)
    page.open(queue).watch("lines")
    mortal.stop()
    page.wait_for_state("Server unavailable")
    page.wait_for("#trouble", "The data shown is from")
    page.screenshot("server-gone")
    page.find("#publish-text").send_keys("not sent")
    page.press("Publish", ".publish")
    page.wait_for(".publish .problem", "The server does not answer.")
    mortal.start()
    page.wait_for_state("Live")
    wait_until(lambda: page.text(".publish .problem") == "", why="the error is removed")
    assert page.text("#trouble") == ""
    page.wait_for("section[aria-labelledby=tail-title] header", "Watching by")
    with daemon.client() as http:
        http.post(f"/q/{queue}", data={"value": "heard"})
    page.wait_for_messages(["1 heard"], ".tail")
    # The browser logs each refused connection, and each 503 of the ending server on a connection that it opened in
    # advance. The console must show nothing else.
    assert [
        problem for problem in page.problems() if "net::ERR_" not in problem and "status of 503" not in problem
    ] == []


def test_the_dashboard_says_that_the_store_is_unavailable(
    browser: webdriver.Chrome, private_folder: Path, private_redis: Redis
) -> None:
    daemon = Daemon(private_folder, "--redis-timeout", "0.5", redis=private_redis)
    page = Page(browser, daemon.url)
    with stopping(daemon):
        page.open()
        private_redis.pause()
        page.wait_for_state("Store unavailable")
        page.wait_for("#trouble", "Redis")
        private_redis.go_on()
        page.wait_for_state("Live")


def test_every_view_of_the_dashboard_says_that_redis_takes_no_writes(
    browser: webdriver.Chrome, private_folder: Path, private_redis: Redis
) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    page = Page(browser, daemon.url)
    with stopping(daemon):
        private_redis.command("CONFIG", "SET", "maxmemory", "1")
        page.open("jobs")
        page.wait_for("#trouble", "New messages are refused: the message store (Redis) takes no writes: OOM")
        page.find("nav a[href$='#/servers']").click()
        assert "New messages are refused" in page.text("#trouble")
        page.wait_for(".notes", "is almost full")
        private_redis.command("CONFIG", "SET", "maxmemory", "0")
        wait_until(lambda: page.text("#trouble") == "", seconds=60)
        page.wait_for_state("Live")


def test_five_thousand_queues_can_be_searched_sorted_and_browsed_by_keyboard(
    browser: webdriver.Chrome, private_folder: Path, private_redis: Redis
) -> None:
    names = [f"queue-{number:04}" for number in range(5000)]
    private_redis.commands([("SADD", "QUEUESET", *names), ("LPUSH", "queue-3210:queue", *["queue-3210:1"] * 9)])
    daemon = Daemon(private_folder, redis=private_redis)
    page = Page(browser, daemon.url)
    with stopping(daemon):
        page.open()
        page.wait_for_figure("queues", "5,000")
        assert page.find(".rows .queue-row a").text == "queue-3210"
        assert len(page.browser.find_elements(By.CSS_SELECTOR, ".rows .queue-row")) < 60
        page.find(".c-name .head").click()
        wait_until(lambda: page.find(".rows .queue-row a").text == "queue-0000")
        page.find(".rows .queue-row a").send_keys(Keys.END)
        wait_until(lambda: page.browser.switch_to.active_element.text == "queue-4999")
        page.browser.switch_to.active_element.send_keys(Keys.ARROW_UP)
        wait_until(lambda: page.browser.switch_to.active_element.text == "queue-4998")
        # The page stays responsive while events arrive.
        longest = browser.execute_async_script(
            "const done = arguments[0]; let last = performance.now(); let longest = 0; let left = 120;"
            "const step = (now) => { longest = Math.max(longest, now - last); last = now;"
            " if (left -= 1) requestAnimationFrame(step); else done(longest); }; requestAnimationFrame(step);"
        )
        assert longest < 2000, "a stall"
        page.find("body").send_keys("/")
        browser.switch_to.active_element.send_keys("3210", Keys.ARROW_DOWN)
        wait_until(lambda: browser.switch_to.active_element.text == "queue-3210")
        browser.switch_to.active_element.send_keys(Keys.ENTER)
        wait_until(lambda: page.text("h1") == "queue-3210")
        page.find("body").send_keys(Keys.ESCAPE)
        page.find(".tools")
        assert page.problems() == []


def test_the_dashboard_fits_screens_of_all_widths(
    browser: webdriver.Chrome, private_folder: Path, private_redis: Redis
) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    page = Page(browser, daemon.url)
    with stopping(daemon), daemon.client() as http:
        busy(http)
        http.post(f"/q/{'n' * 170}", data={"value": "x"})
        for queue, waiting in {"": "267", "thumbnails": "250", "n" * 170: "1"}.items():
            page.open(queue)
            page.wait_for_figure("ready", waiting)
            for width in WIDTHS:
                page.look_like(width)
                assert browser.execute_script("return document.documentElement.scrollWidth") <= width, (queue, width)
                if not queue:
                    name = page.find(".rows [data-queue=thumbnails] .c-name a")
                    script = "return arguments[0].scrollWidth <= arguments[0].clientWidth"
                    assert browser.execute_script(script, name), f"the name is cut at {width}"
                    assert page.find("a[href$='/api']").is_displayed()


#: The screen widths to check: both sides of each width at which a style sheet changes the layout, and some between.
WIDTHS = (320, 340, 360, 390, 440, 499, 500, 501, 560, 620, 699, 700, 701, 719, 780, 860, 939, 940, 941, 979, 980, 981,
          1050, 1129, 1130, 1131, 1200, 1269, 1270, 1271, 1400)  # fmt: skip


def busy(http: httpx.Client) -> list[str]:
    """Creates queues of all kinds; returns the names of those to look at."""
    for name, count in {"orders": 12, "emails": 3, "thumbnails": 250, "audit": 0}.items():
        lines = "".join(f'{{"number":{number}}}\n' for number in range(count))
        http.post(f"/q/{name}", content=lines, headers={"Content-Type": "application/x-ndjson"})
    http.post("/q/with%2Fslash%20%3Cb%3E", data={"value": "<img src=x onerror=alert(1)>"})
    http.post("/control/emails", data={"status": "stop"})
    dead_letters(http, "webhooks", 2)
    return ["orders", "emails", "webhooks", "with/slash <b>"]


LOOKS = [(1280, False), (1280, True), (390, False), (390, True)]


@pytest.mark.needs("npm")
def test_the_dashboard_has_no_serious_accessibility_fault(
    browser: webdriver.Chrome, private_folder: Path, private_redis: Redis, axe: str
) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    page = Page(browser, daemon.url)

    def check(shown: str) -> None:
        for width, dark in LOOKS:
            page.look_like(width, dark=dark)
            page.screenshot(f"{shown}-{width}-{'dark' if dark else 'light'}")
            assert page.faults(axe) == [], (shown, width, dark)
            assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth"), "it fits"

    with stopping(daemon), daemon.client() as http:
        page.open()
        page.wait_for(".hint", "There are no queues yet")
        check("empty")
        queues = busy(http)
        page.wait_for_figure("queues", "5")
        page.wait_for(".rows", "webhooks")
        check("busy")
        for queue in queues:
            page.open(queue)
            wait_until(lambda: page.messages() or page.text("#messages .nothing"))
            if page.messages():
                page.find("#messages li:first-child summary").click()
            check(f"queue-{queue.split('/')[0]}")
        page.press("Purge or remove…")
        check("purge")
        assert page.problems() == []
