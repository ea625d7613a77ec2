"""The dashboard's page about the servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from tests.e2e.page import Page
from tests.servers import Daemon, Redis, stopping, wait_until

pytestmark = pytest.mark.needs("chromium", "chromedriver")

PATIENT = ("--peer-timeout", "10")
ADMIN = '{"queues": ["*"], "privs": ["read"]}'
OF_TWO_QUEUES = '{"queues": ["a", "b"], "privs": ["read", "write", "admin"]}'


@pytest.fixture
def own_redis(private_folder: Path) -> Iterator[Redis]:
    with stopping(Redis(private_folder / "own-redis")) as redis:
        yield redis


@pytest.fixture
def own_daemon(private_folder: Path, own_redis: Redis) -> Iterator[Daemon]:
    with stopping(Daemon(private_folder / "own", *PATIENT, redis=own_redis)) as daemon:
        yield daemon


@pytest.fixture
def servers(browser: webdriver.Chrome, own_daemon: Daemon) -> Page:
    """The page about the servers, reached by the navigation."""
    page = Page(browser, own_daemon.url)
    page.open()
    page.find(".bar a[href$='#/servers']").click()
    wait_until(lambda: page.text("h1") == "Servers")
    return page


def cells(page: Page, table: str) -> list[dict[str, str]]:
    """The rows of a table: the text of each cell by its heading."""
    script = (
        "return [...document.querySelectorAll(`table[aria-label=${arguments[0]}] tbody tr`)].map((row) =>"
        " Object.fromEntries([...row.cells].map((cell) => [cell.dataset.label, cell.textContent])))"
    )
    return list(page.browser.execute_script(script, table))


def test_servers_that_come_and_go_are_listed_with_their_workers(
    servers: Page, own_daemon: Daemon, private_folder: Path, own_redis: Redis
) -> None:
    wait_until(lambda: len(cells(servers, "RestMQ")) == 1)
    (row,) = cells(servers, "RestMQ")
    assert row["Process"] == str(own_daemon.process.pid)
    assert row["Address"] == f"{own_daemon.url}/"
    assert "Worker" not in row, "it has none"
    with stopping(Daemon(private_folder / "other", *PATIENT, "--workers", "2", redis=own_redis)):
        wait_until(lambda: len(cells(servers, "RestMQ")) == 3)
        assert sorted(row["Worker"] for row in cells(servers, "RestMQ")) == ["", "1", "2"]
    wait_until(lambda: len(cells(servers, "RestMQ")) == 1)
    assert servers.problems() == []


def test_what_redis_tells_and_what_may_lose_messages_is_shown(servers: Page, own_redis: Redis) -> None:
    wait_until(lambda: len(cells(servers, "Redis")) == 1)
    (row,) = cells(servers, "Redis")
    assert (row["Address"], row["Role"], row["State"]) == ("a Unix socket", "primary", "up")
    assert row["Memory"].endswith("MiB, no limit")
    assert row["On disk"].startswith("append-only file")
    assert servers.text(".notes") == ""
    own_redis.command("CONFIG", "SET", "maxmemory", "500mb")
    own_redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    servers.wait_for(".notes", "Redis drops messages when its memory is full (allkeys-lru).")
    assert cells(servers, "Redis")[0]["Memory"].endswith("MiB of 500.0 MiB")


def test_while_redis_is_away_the_page_says_so(servers: Page, own_redis: Redis, own_daemon: Daemon) -> None:
    wait_until(lambda: len(cells(servers, "Redis")) == 1)
    own_redis.kill()
    servers.wait_for(".notes", "Only the one that shows this page is listed.")
    wait_until(lambda: cells(servers, "Redis")[0]["State"].startswith("no answer"))
    assert cells(servers, "RestMQ")[0]["Process"] == str(own_daemon.process.pid)
    own_redis.start()
    wait_until(lambda: cells(servers, "Redis")[0]["State"] == "up")
    wait_until(lambda: servers.text(".notes") == "")


def test_a_token_for_two_queues_sees_no_servers_and_one_for_all_does(servers: Page, own_redis: Redis) -> None:
    own_redis.command("SET", "AUTHKEY:two", OF_TWO_QUEUES)
    own_redis.command("SET", "AUTHKEY:all", ADMIN)
    servers.browser.execute_script("sessionStorage.setItem('restmq.token', 'two')")
    servers.browser.refresh()
    servers.wait_for(".hint", "the token is not for all queues")
    assert servers.all("table, .panel") == []
    servers.press("Signed in")
    servers.find("#token").send_keys("all", Keys.ENTER)
    wait_until(lambda: len(cells(servers, "RestMQ")) == 1)
    assert servers.text(".hint") == ""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("path", ["/dashboard", "/dashboard#/q/jobs", "/q/", "/j/jobs", "/queue", "/api", "/nowhere"])
def test_every_page_leads_to_the_servers(page: Page, path: str, width: int) -> None:
    page.look_like(width)
    page.browser.get(page.url + path)
    page.find("nav a[href$='#/servers']").click()
    wait_until(lambda: page.text("h1") == "Servers")
    wait_until(lambda: len(cells(page, "Redis")) == 1)
    assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width
    page.browser.get_log("browser")  # the page that does not exist was answered 404


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_has_no_accessibility_faults(servers: Page, axe: str, width: int, dark: bool) -> None:
    wait_until(lambda: len(cells(servers, "Redis")) == 1)
    servers.look_like(width, dark=dark)
    assert servers.faults(axe) == []
