"""Takes the README's picture of the dashboard: run ``python -m docs.make_screenshots`` in the checkout.

It starts a server, fills queues of several kinds, generates traffic for a minute, and uses a headless Chromium.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import tempfile
import threading
from pathlib import Path

import httpx

from tests.e2e.conftest import start_browser
from tests.e2e.page import Page
from tests.servers import ROOT, Comet, Daemon, Redis, stopping

PICTURE = ROOT / "docs" / "dashboard.png"
TRAFFIC_SECONDS = 75
_TICK_SECONDS = 0.25
_BACKLOGS = {"emails": 18, "invoices": 4, "reports/monthly": 480, "search.index": 910, "thumbnails": 86}


def furnish(http: httpx.Client) -> None:
    """Creates queues with backlogs, one paused, one with dead letters, one with delayed messages."""
    for queue, count in _BACKLOGS.items():
        lines = "".join(f"{json.dumps({'job': number})}\n" for number in range(count))
        path = f"/q/{queue.replace('/', '%2F')}"
        http.post(path, content=lines, headers={"Content-Type": "application/x-ndjson"})
    http.post("/p/emails", data={"policy": "roundrobin", "max_deliveries": "1", "lease": "60"})
    for message in http.get("/q/emails?lease=600&count=5").json()[:3]:
        http.post("/m/" + message["key"], data={"receipt": message["receipt"], "lease": "0"})
    http.post("/control/invoices", data={"status": "stop"})
    http.post("/q/reminders", data={"value": "call Ada", "delay": "3600"})


def keep_busy(daemon: Daemon, over: threading.Event) -> None:
    """Generates traffic in waves until ``over`` is set."""
    chance = random.Random(4)  # noqa: S311  the picture should look alike each time
    with daemon.client() as http:
        tick = 0
        while not over.wait(_TICK_SECONDS):
            tick += 1
            wave = 1 + math.sin(tick / 14)
            for _ in range(round(chance.random() * 10 * wave)):
                http.post("/q/orders", json={"order": tick})
            http.get(f"/q/orders?count={chance.randint(3, 6)}")
            for queue in ("clicks", "github:webhooks"):
                for _ in range(chance.randint(0, 3)):
                    http.post(f"/q/{queue}", data={"value": "x"})
            http.get("/q/thumbnails")


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="restmq-"))
    redis = Redis(folder / "redis")
    daemon = Daemon(folder / "daemon", redis=redis)
    browser = start_browser(folder)
    try:
        with stopping(daemon, redis), daemon.client() as http:
            furnish(http)
            page = Page(browser, daemon.url, height=800).open()
            listeners = [Comet(daemon, path) for path in ("/c/clicks", "/sse/clicks", "/c/github:webhooks")]
            over = threading.Event()
            traffic = threading.Thread(target=keep_busy, args=(daemon, over))
            traffic.start()
            over.wait(TRAFFIC_SECONDS)
            browser.save_screenshot(str(PICTURE))
            assert page.problems() == []
            over.set()
            traffic.join()
            for listener in listeners:
                listener.close()
    finally:
        browser.quit()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
