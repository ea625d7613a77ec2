"""All pages behind a real nginx that serves RestMQ under a path, as docs/deploy.md says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.e2e.page import Page
from tests.integration.test_proxies import Nginx
from tests.servers import ROOT, Daemon, Redis, stopping

pytestmark = pytest.mark.needs("chromium", "chromedriver", "nginx")


class UnderAPath(Nginx):
    """nginx with the location of docs/deploy.md in place of those of examples/nginx.conf."""

    def adapted(self, name: str, *replacements: tuple[str, str]) -> str:
        page = (ROOT / "docs" / "deploy.md").read_text()
        (location,) = re.findall(r"```nginx\n(location /mq/ .*?)```", page, re.DOTALL)
        before = super().adapted(name, *replacements).partition("    location / {")[0]
        return f"{before}{location}}}\n"

    @property
    def url(self) -> str:  # type: ignore[override]
        return f"http://127.0.0.1:{self.port}/mq"


class WithDefaults(UnderAPath):
    """nginx with nothing but a location: it changes the header Host, and speaks HTTP/1.0."""

    def adapted(self, name: str, *replacements: tuple[str, str]) -> str:
        server = re.findall(r"\S+", replacements[0][1])[1]
        location = f"location /mq/ {{ proxy_pass http://{server}/; }}".replace(";/", "/")
        return f"server {{ listen 127.0.0.1:{self.port}; {location} }}\n"


@pytest.fixture(scope="module", params=[UnderAPath, WithDefaults])
def prefixed(request: pytest.FixtureRequest, module_folder: Path, redis: Redis) -> Iterator[Nginx]:
    kind: type[Nginx] = request.param
    daemon = Daemon(module_folder / f"d-{kind.__name__}", redis=redis)
    nginx = kind(module_folder / f"n-{kind.__name__}", daemon)
    with stopping(nginx, daemon):
        yield nginx
        daemon.assert_no_tracebacks()


@pytest.fixture
def prefixed_page(browser: webdriver.Chrome, prefixed: Nginx) -> Iterator[Page]:
    """The pages. At the end, the console has no error, and no request has left the path."""
    page = Page(browser, prefixed.url)
    yield page
    icon = "/favicon.ico"  # of the whole host: the browser itself requests it for a page of JSON
    assert [problem for problem in page.problems() if icon not in problem] == []
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        urlsplit(each["params"].get("url") or each["params"]["request"]["url"])
        for each in asked
        if each["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated")
    ]
    paths = {url.path for url in urls if url.scheme in ("http", "ws")}
    assert len(paths) > 3
    assert {path for path in paths if not path.startswith("/mq/")} <= {icon}


def is_styled(page: Page) -> bool:
    return bool(page.browser.execute_script("return [...document.styleSheets].some((sheet) => sheet.cssRules.length)"))


def test_the_dashboard_publishes_listens_and_shows_messages(prefixed_page: Page, prefixed: Nginx, queue: str) -> None:
    page = prefixed_page
    page.browser.get(f"{page.url}/")
    page.wait_for_state("Live")
    assert page.browser.current_url == f"{page.url}/dashboard"
    page.open(queue)
    page.watch("websocket" if type(prefixed) is UnderAPath else "sse")
    page.find(".publish textarea").send_keys("from the page")
    page.press("Publish", ".publish")
    page.wait_for_messages(["1 from the page"])
    page.wait_for_messages(["1 from the page"], ".tail")


def test_queue_pages_link_to_each_other(prefixed_page: Page, queue: str) -> None:
    page, name = prefixed_page, f"{queue}/a b"
    httpx.post(f"{page.url}/q/{quote(name, safe='')}", data={"value": "x"}, trust_env=False)
    page.browser.get(f"{page.url}/q/?count=100000")
    assert is_styled(page)
    page.browser.find_element(By.LINK_TEXT, name).click()
    page.wait_for("h1", f"Queue {name}")
    assert is_styled(page)
    page.browser.find_element(By.LINK_TEXT, "Dashboard").click()
    page.wait_for_state("Live")


def test_commands_run_and_the_api_is_described(prefixed_page: Page, queue: str) -> None:
    page = prefixed_page
    page.browser.get(f"{page.url}/queue")
    field = page.find("#body")
    field.clear()
    field.send_keys(json.dumps({"cmd": "add", "queue": queue, "value": "v"}))
    page.press("Run")
    page.wait_for("body", f'"key":"{queue}:1"')
    page.browser.get(f"{page.url}/api")
    page.find("#find").send_keys("extends the lease")
    page.wait_for("#found", " of ")
    page.browser.find_element(By.PARTIAL_LINK_TEXT, "OpenAPI").click()
    page.wait_for("body", '"servers":[{"url":"."}]')
    assert page.browser.current_url == f"{page.url}/openapi.json"
