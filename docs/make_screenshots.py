"""Takes the README's picture of the dashboard: run ``python -m docs.make_screenshots`` in the checkout.

It fills queues of several kinds, and generates traffic for as many seconds as the argument says (default half an hour,
because the charts show up to an hour). At the end it opens the page in a headless Chromium.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import httpx

from tests.e2e.conftest import start_browser
from tests.e2e.page import Page
from tests.servers import ROOT, Comet, Daemon, Redis, stopping

PICTURE = ROOT / "docs" / "dashboard.png"
TRAFFIC_SECONDS = 1800.0
#: Time for which the page is open before the picture, so that its rates are known.
_SHOWN_SECONDS = 15.0
_TICK_SECONDS = 0.5
_WAVE_SECONDS = 420
_BACKLOGS = {"emails": 18, "invoices": 4, "reports/monthly": 120, "search.index": 260, "thumbnails": 86}


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


def publish(http: httpx.Client, queue: str, count: int) -> None:
    if count > 0:
        lines = "".join(f"{json.dumps({'job': number})}\n" for number in range(count))
        http.post(f"/q/{queue}", content=lines, headers={"Content-Type": "application/x-ndjson"})


def keep_busy(daemon: Daemon, over: threading.Event) -> None:
    """Generates traffic in waves until ``over`` is set. What is taken follows what is published, some minutes later."""
    chance = random.Random(4)  # noqa: S311  the picture should look alike each time
    with daemon.client() as http:
        tick = 0
        while not over.wait(_TICK_SECONDS):
            tick += 1
            turn = 2 * math.pi * tick * _TICK_SECONDS / _WAVE_SECONDS
            publish(http, "search.index", round(chance.random() * 10 * (1.15 + math.sin(turn))))
            http.get(f"/q/search.index?count={max(1, round(chance.random() * 10 * (1.15 + math.sin(turn - 0.9))))}")
            publish(http, "orders", chance.randint(2, 6))
            http.get(f"/q/orders?count={chance.randint(2, 6)}")
            for queue in ("clicks", "github:webhooks"):
                publish(http, queue, chance.randint(0, 3))
            if tick % 40 == 0:
                publish(http, "thumbnails", chance.randint(10, 40))
            http.get("/q/thumbnails")


def work(daemon: Daemon, over: threading.Event) -> None:
    """A worker that waits for e-mails, as a client in a long poll."""
    with daemon.client() as http:
        while not over.is_set():
            http.get("/q/welcome-mails?wait=5")


def main(seconds: float) -> None:
    folder = Path(tempfile.mkdtemp(prefix="restmq-"))
    redis = Redis(folder / "redis")
    with stopping(Daemon(folder / "first", redis=redis)) as first, first.client() as http:
        furnish(http)  # by another server: it is no traffic of the one that is shown
    over = threading.Event()
    daemon = Daemon(folder / "daemon", redis=redis)
    with stopping(daemon, redis):
        listeners = [Comet(daemon, path) for path in ("/c/clicks", "/sse/clicks", "/c/github:webhooks")]
        threads = [threading.Thread(target=each, args=(daemon, over)) for each in (keep_busy, work)]
        for thread in threads:
            thread.start()
        over.wait(seconds)
        browser = start_browser(folder)
        try:
            page = Page(browser, daemon.url, height=830).open()
            over.wait(_SHOWN_SECONDS)
            browser.save_screenshot(str(PICTURE))
            assert page.problems() == []
        finally:
            browser.quit()
            over.set()
            for thread in threads:
                thread.join()
            for listener in listeners:
                listener.close()
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else TRAFFIC_SECONDS)
