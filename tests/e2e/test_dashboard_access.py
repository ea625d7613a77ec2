"""What the dashboard shows and offers to users with limited access."""

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


@pytest.fixture(scope="module")
def guarded_daemon(module_folder: Path, redis: Redis) -> Iterator[Daemon]:
    """A server with passwords."""
    own = module_folder / "guarded"
    own.mkdir()
    (own / "acl.conf").write_text(ACL)
    with stopping(Daemon(own, redis=redis)) as daemon:
        yield daemon


@pytest.fixture
def guarded(
    browser: webdriver.Chrome,
    guarded_daemon: Daemon,
    run: Run,  # noqa: F811
    core: RedisOperations,  # noqa: F811
    queue: str,
) -> Page:
    """The dashboard of a server with passwords and two queues. The first queue has settings and three tokens."""
    for role, privileges in (("owner", ["read", "write", "admin"]), ("reader", ["read"]), ("writer", ["write"])):
        run(core.authorization_create, f"{role}-{queue}", [queue], privileges)
    for name in (queue, f"{queue}-secret"):
        run(core.queue_add, name, b"x")
    run(core.queue_settings_set, queue, {"lease": 99, "max_deliveries": 5})
    return Page(browser, guarded_daemon.url)


def sign_in(page: Page, token: str) -> None:
    page.find("#token").send_keys(token, Keys.ENTER)


def visit(page: Page, queue: str) -> None:
    page.browser.get(f"{page.url}/dashboard#/q/{queue}")


def test_signing_in_later_loads_the_settings_and_saving_keeps_them(
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


def test_a_token_without_read_access_sees_nothing_and_is_offered_nothing(guarded: Page, queue: str) -> None:
    visit(guarded, queue)
    sign_in(guarded, f"owner-{queue}")
    guarded.button("Purge or remove…")
    guarded.press("Signed in")
    sign_in(guarded, f"writer-{queue}")
    guarded.wait_for_state("Not allowed")
    guarded.wait_for("#trouble", "lacks the privilege 'read'")
    guarded.wait_for(".queue-page", REFUSED)
    assert guarded.offered() == {"Sign in", "Signed in"}
    guarded.find(".back").click()
    guarded.wait_for(".hint", REFUSED)
    assert guarded.all(".rows a") == []
    guarded.wait_for_figure("queues", "–")


def test_a_queue_outside_the_tokens_scope_shows_nothing(guarded: Page, queue: str) -> None:
    visit(guarded, f"{queue}-secret")
    sign_in(guarded, f"owner-{queue}")
    guarded.wait_for_state("Live")
    guarded.wait_for(".queue-page", "the token is not for this queue.")
    assert guarded.offered() == {"Signed in"}
    assert guarded.all(".panel, .figures, .chip") == []
    guarded.find(".back").click()
    guarded.find("input[type=search]").send_keys(f"{queue}-secret")
    guarded.wait_for(".hint", "No queue in the list has exactly this name.")


def test_a_token_is_asked_for_and_limits_the_offered_actions(guarded: Page, queue: str) -> None:
    guarded.browser.get(f"{guarded.url}/dashboard")
    guarded.wait_for("dialog", "send a username and password, or a token")
    assert guarded.text(".chart .legend")
    assert guarded.text(".chart .grid text") == "", "no times before the server has sent its own"
    sign_in(guarded, "no-such-token")
    guarded.wait_for("dialog", "the token is unknown")
    sign_in(guarded, f"reader-{queue}")
    guarded.wait_for_state("Live")
    guarded.wait_for_figure("queues", "1")
    guarded.find(".rows a").click()
    guarded.wait_for_messages(["1 x"])
    assert {"Pause", "Start", "Purge or remove…", "Publish", "Save"} & guarded.offered() == set()
    guarded.watch("websocket")
    guarded.press("Signed in")
    sign_in(guarded, f"owner-{queue}")
    guarded.button("Publish")
    assert {"Pause", "Purge or remove…", "Publish", "Save"} <= guarded.offered()
    guarded.find("#publish-text").send_keys("y")
    guarded.press("Publish", ".publish")
    guarded.wait_for_messages(["2 y"], ".tail")


def test_a_password_known_to_the_browser_signs_in(guarded: Page) -> None:
    browser = guarded.browser
    browser.get(guarded.url.replace("//", "//ada:lovelace@") + "/q/")  # as if typed into the browser's own dialog
    browser.get(f"{guarded.url}/dashboard")
    guarded.press("Use a password", "dialog")
    guarded.wait_for_state("Live")
    browser.refresh()
    guarded.wait_for_state("Live")
