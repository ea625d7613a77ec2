"""A headless Chromium that connects only to this machine, and the examples' pages for it."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.e2e.page import Page
from tests.servers import ROOT, Daemon, Redis, free_port, stopping

AXE = "axe-core@4.10.3"
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]


def start_browser(folder: Path) -> webdriver.Chrome:
    """A browser with its profile in this folder. It logs the console and the network requests of its pages."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in [*FLAGS, f"--user-data-dir={folder / 'chromium'}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    driver.set_script_timeout(20)
    return driver


@pytest.fixture(scope="session")
def chromium(folder: Path) -> Iterator[webdriver.Chrome]:
    """One browser for all tests: starting one takes as long as many tests."""
    driver = start_browser(folder)
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """A new tab in a browser without cookies, storage or cache of earlier tests."""
    home = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    yield chromium
    for origin in {"{0.scheme}://{0.netloc}".format(urlsplit(asked)) for asked in visited(chromium)}:
        chromium.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
    chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
    chromium.execute_cdp_cmd("Network.clearBrowserCache", {})
    for tab in chromium.window_handles:
        if tab != home:
            chromium.switch_to.window(tab)
            chromium.close()
    chromium.switch_to.window(home)


def visited(chromium: webdriver.Chrome) -> list[str]:
    """The addresses in the tab's history."""
    history = chromium.execute_cdp_cmd("Page.getNavigationHistory", {})
    return [entry["url"] for entry in history["entries"]]


@pytest.fixture
def page(browser: webdriver.Chrome, daemon: Daemon) -> Iterator[Page]:
    """The dashboard. At the end, the console has no warning or error, and the page has contacted no other host."""
    shown = Page(browser, daemon.url)
    yield shown
    assert shown.problems() == []
    assert shown.hosts_asked() == {f"127.0.0.1:{daemon.port}"}


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """The origin of the examples' pages, which python3 -m http.server serves."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", ROOT / "examples"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert server.stdout is not None
    assert b"Serving HTTP" in server.stdout.readline()
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait()


@pytest.fixture(scope="session")
def mortal(folder: Path, redis: Redis) -> Iterator[Daemon]:
    """A daemon that tests may stop, and must start again."""
    with stopping(Daemon(folder / "mortal", redis=redis)) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def axe(folder: Path) -> str:
    """The source of axe-core, which finds accessibility faults. It comes from npm and is not stored."""
    packed = subprocess.run(
        ["npm", "pack", "--silent", AXE], cwd=folder, stdout=subprocess.PIPE, text=True, check=True, timeout=120
    ).stdout.split()[-1]
    with tarfile.open(folder / packed) as archive:
        source = archive.extractfile("package/axe.min.js")
        assert source is not None
        return source.read().decode()
