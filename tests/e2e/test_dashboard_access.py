"""What the dashboard shows and offers to those who may not see or do everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from restmq.core import RedisOperations
from tests.e2e.page import Page
from tests.integration.conftest import Run, core, run  # noqa: F401  fixtures
from tests.servers import Daemon, Redis, stopping, wait_until

pytestmark = pytest.mark.needs("chromium", "chromedriver")

ACL = "".join(
    f"[{section}]\nusername = ada\npassword = lovelace\n"
    for section in ("rest:producer", "rest:consumer", "comet:consumer", "websocket:consumer")
)
REFUSED = "Nothing is shown because the server denied access."


@pytest.fixture
def guarded(
    browser: webdriver.Chrome,
    private_folder: Path,
    redis: Redis,
    run: Run,  # noqa: F811
    core: RedisOperations,  # noqa: F811
    queue: str,
) -> Iterator[Page]:
    """A server with passwords and two queues; an owner's and a writer's token for one, which has settings."""
    (private_folder / "acl.conf").write_text(ACL)
    run(core.authorization_create, f"owner-{queue}", [queue], ["read", "write", "admin"])
    run(core.authorization_create, f"writer-{queue}", [queue], ["write"])
    for name in (queue, f"{queue}-secret"):
        run(core.queue_add, name, b"x")
    run(core.queue_settings_set, queue, {"lease": 99, "max_deliveries": 5})
    daemon = Daemon(private_folder, redis=redis)
    with stopping(daemon):
        yield Page(browser, daemon.url)


def sign_in(page: Page, token: str) -> None:
    page.find("#token").send_keys(token, Keys.ENTER)


def visit(page: Page, queue: str) -> None:
    page.browser.get(f"{page.url}/dashboard#/q/{queue}")


def test_who_signs_in_later_finds_the_settings_and_keeps_them(
    guarded: Page,
    run: Run,  # noqa: F811
    core: RedisOperations,  # noqa: F811
    queue: str,
) -> None:
    visit(guarded, queue)
    guarded.press("Cancel", "dialog")
    guarded.wait_for(".queue-page", REFUSED)
    assert guarded.offered() == {"Sign in"}
    assert guarded.all(".panel, .figures, .chip") == []
    guarded.press("Sign in")
    sign_in(guarded, f"owner-{queue}")
    wait_until(lambda: guarded.find("#setting-lease").get_attribute("value") == "99")
    guarded.find("#setting-max_length").send_keys("8")
    guarded.press("Save")
    guarded.wait_for("#notice", "Saved.")
    assert run(core.queue_settings_get, queue) == {"lease": 99, "max_deliveries": 5, "max_length": 8}


def test_a_token_that_may_not_look_is_shown_and_offered_nothing(guarded: Page, queue: str) -> None:
    visit(guarded, queue)
    sign_in(guarded, f"owner-{queue}")
    guarded.button("Purge…")
    guarded.press("Signed in")
    sign_in(guarded, f"writer-{queue}")
    guarded.wait_for_state("Not allowed")
    guarded.wait_for("#trouble", "lacks the privilege 'read'")
    guarded.wait_for(".queue-page", REFUSED)
    assert guarded.offered() == {"Sign in", "Signed in"}
    guarded.find(".back").click()
    guarded.wait_for(".hint", REFUSED)
    assert guarded.all(".rows a") == []
    assert guarded.figure("queues") == "–"


def test_of_a_queue_that_the_token_is_not_for_nothing_is_said(guarded: Page, queue: str) -> None:
    visit(guarded, f"{queue}-secret")
    sign_in(guarded, f"owner-{queue}")
    guarded.wait_for_state("Live")
    guarded.wait_for(".queue-page", "the token is not for this queue.")
    assert guarded.offered() == {"Signed in"}
    assert guarded.all(".panel, .figures, .chip") == []
    guarded.find(".back").click()
    guarded.find("input[type=search]").send_keys(f"{queue}-secret")
    guarded.wait_for(".hint", "No queue in the list has exactly this name.")
