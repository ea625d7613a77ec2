"""What a user sees and does on the dashboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from selenium import webdriver
from selenium.webdriver.remote.webelement import WebElement

from tests.servers import ROOT, wait_until

SCREENSHOTS = ROOT / "tests" / "artifacts"
#: The visible elements of a selector, in one call; WebDriver would need several calls for each element.
SHOWN = (
    "const shown = [...document.querySelectorAll(arguments[0])].filter((element) => element.getClientRects().length > 0"
    " && element.checkVisibility({opacityProperty: true, visibilityProperty: true}));"
)


class Page:
    """The dashboard of a server in a browser."""

    def __init__(self, browser: webdriver.Chrome, url: str, width: int = 1280, height: int = 900) -> None:
        self.browser = browser
        self.url = url
        self.look_like(width, height)

    def look_like(self, width: int, height: int = 900, dark: bool = False) -> None:
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, queue: str = "") -> Page:
        self.browser.get(f"{self.url}/dashboard" + (f"#/q/{quote(queue, safe='')}" if queue else ""))
        self.wait_for_state("Live")
        if queue:
            wait_until(lambda: self.text("h1") == queue)
        return self

    def find(self, selector: str) -> WebElement:
        """The first visible element; waits until there is one."""
        return wait_until(lambda: self.all(selector), why=f"{selector} is shown")[0]  # type: ignore[no-any-return]

    def all(self, selector: str) -> list[WebElement]:
        return list(self.browser.execute_script(SHOWN + "return shown", selector))

    def text(self, selector: str) -> str:
        """The visible text of these elements."""
        return "\n".join(self._texts(selector))

    def _texts(self, selector: str) -> list[str]:
        read = "return shown.map((element) => (element.innerText ?? element.textContent).trim())"
        return list(self.browser.execute_script(SHOWN + read, selector))

    def wait_for(self, selector: str, text: str) -> None:
        wait_until(lambda: text in self.text(selector), why=f"{text!r} in {selector}: {self.text(selector)!r}")

    def wait_for_state(self, state: str) -> None:
        self.wait_for("#link", state)

    def button(self, name: str, inside: str = "body") -> WebElement:
        """The button whose text starts with ``name``; waits until there is one."""

        named = SHOWN + (
            "return shown.find((element) => element.innerText.trim().startsWith(arguments[1]) && !element.ariaDisabled)"
        )
        return wait_until(  # type: ignore[no-any-return]
            lambda: self.browser.execute_script(named, f"{inside} button", name), why=f"a button {name!r}"
        )

    def press(self, name: str, inside: str = "body") -> None:
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.button(name, inside))
        self.button(name, inside).click()

    def offered(self) -> set[str]:
        return set(self._texts("button"))

    def figure(self, name: str) -> str:
        return self.text(f".f-{name} dd")

    def wait_for_figure(self, name: str, text: str) -> None:
        wait_until(lambda: self.figure(name) == text, why=f"{name} is {text}, not {self.figure(name)}")

    def messages(self, panel: str = "#messages") -> list[str]:
        """Number and preview of each message in a list."""
        script = (
            "return [...document.querySelectorAll(arguments[0] + ' li[data-key]')].map((item) =>"
            " item.querySelector('.key').textContent + ' ' + item.querySelector('.preview').textContent)"
        )
        return list(self.browser.execute_script(script, panel))

    def wait_for_messages(self, wanted: list[str], panel: str = "#messages") -> None:
        wait_until(lambda: self.messages(panel) == wanted, why=f"{wanted}, not {self.messages(panel)}")

    def watch(self, transport: str) -> None:
        """Begins the live tail."""
        self.find(f"input[name=tail][value={transport}]").click()
        self.press("Watch", "section[aria-labelledby=tail-title]")
        self.wait_for("section[aria-labelledby=tail-title] header", "Watching by")

    def screenshot(self, name: str) -> Path:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        assert self.browser.save_screenshot(str(path))
        return path

    def problems(self) -> list[str]:
        """Warnings and errors in the console."""
        return [
            entry["message"] for entry in self.browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
        ]

    def hosts_asked(self) -> set[str]:
        """Every host that the page has sent a request to."""
        asked = []
        for entry in self.browser.get_log("performance"):
            said: dict[str, Any] = json.loads(entry["message"])["message"]
            if said["method"] == "Network.requestWillBeSent":
                asked.append(urlsplit(said["params"]["request"]["url"]))
            elif said["method"] == "Network.webSocketCreated":
                asked.append(urlsplit(said["params"]["url"]))
        return {url.netloc for url in asked if url.scheme in ("http", "https", "ws", "wss")}

    def faults(self, axe: str) -> list[str]:
        """The serious and critical accessibility faults that axe-core finds."""
        self.browser.execute_script(axe)
        found = self.browser.execute_async_script("axe.run({resultTypes: ['violations']}).then(arguments[0])")
        return [
            f"{fault['id']}: {fault['help']}: {node['html'][:200]} {node.get('failureSummary', '')}"
            for fault in found["violations"]
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]
