"""The charts of the dashboard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
from selenium import webdriver

from tests.e2e.page import Page
from tests.servers import Daemon, Redis, stopping, wait_until

#: Draws samples, given as [seconds, waiting, in, out], in a chart of its own, in place of the page.
DRAW = """
const [samples, now, width, done] = arguments;
import("./static/chart.js").then(({ Chart }) => {
  const chart = new Chart("drawn", "");
  document.getElementById("main").replaceChildren(chart.figure);
  const series = samples.map(([seconds, ready, put, out]) => ({ time: seconds * 1000, ready, in: put, out }));
  chart.show({ series: () => series, model: { unbrokenSince: 1 }, row: series.at(-1), rate: () => null }, now * 1000);
  requestAnimationFrame(() => requestAnimationFrame(() => done(Object.fromEntries(
    ["depth-line", "in-area", "out-area"].map((name) => [name, chart[name].getAttribute("d")])))));
});
"""
#: Some day's 12 o'clock, in seconds since 1970.
NOON = 1_700_049_600


def parts(path: str) -> list[list[tuple[float, float]]]:
    """The connected parts of an SVG path, each as its points."""
    return [
        [(float(x), float(y)) for x, y in (point.split() for point in part.rstrip("Z").split("L"))]
        for part in path.split("M")[1:]
    ]


def draw(page: Page, *samples: tuple[float, int, int, int], now: float) -> dict[str, list[list[tuple[float, float]]]]:
    """The parts of each line when a chart has these samples, whose times are seconds before ``now``."""
    given = [[now - before, *numbers] for before, *numbers in samples]
    drawn: dict[str, Any] = page.browser.execute_async_script(DRAW, given, now, None)
    return {name: parts(path) for name, path in drawn.items()}


def test_a_new_page_shows_the_time_before_it_was_opened(
    browser: webdriver.Chrome, private_folder: Path, private_redis: Redis
) -> None:
    private_redis.commands(
        [("SADD", "QUEUESET", "jobs"), ("SET", "jobs:UUID", "8")]
        + [
            command
            for n in range(1, 9)
            for command in (("SET", f"jobs:{n}", "x"), ("LPUSH", "jobs:queue", f"jobs:{n}"))
        ]
    )
    with stopping(Daemon(private_folder, redis=private_redis)) as daemon, daemon.client() as http:

        def waiting() -> list[int]:
            return [sample["ready"] for sample in http.get("/dashboard/samples/jobs").json()["samples"]]

        wait_until(lambda: waiting() == [8])
        http.get("/q/jobs?count=6")
        wait_until(lambda: waiting()[-1] == 2)
        page = Page(browser, daemon.url)
        for queue, charts in {"": (".chart", ".spark"), "jobs": (".chart",)}.items():
            page.open(queue)
            page.wait_for_figure("ready", "2")
            wait_until(lambda: "No consumers" not in page.text(".notes, .rows .condition"), why="a client took some")
            wait_until(lambda: page.text(".chart .depth-most") == "10", why="the scale has the 8 messages of before")
            for chart in charts:
                line = page.find(f"{chart} .depth-line").get_attribute("d") or ""
                (part,) = parts(line)  # it goes on without a gap
                assert part[0][1] < part[-1][1], "it falls from 8 to 2"
        assert page.problems() == []


def test_a_chart_tells_its_scales_its_times_and_the_figures_of_now(page: Page, http: httpx.Client, queue: str) -> None:
    for value in "abcdef":
        http.post(f"/q/{queue}", data={"value": value})
    page.open(queue)
    page.wait_for_figure("ready", "6")
    for width in (1280, 390):
        page.look_like(width)
        wait_until(lambda: page.text(".chart .depth-most") == "10")
        for name, unit in (("in-most", " / s in"), ("out-most", " / s out")):
            scale = page.text(f".chart .{name}")
            assert scale.endswith(unit) and float(scale.removesuffix(unit)) >= 2
        assert re.search(r"\d\d:\d\d", page.text(".chart .grid text"))
    now = re.escape(f"{queue}: 6 messages waiting, 0 in and 0 out per second now; at most 6 waiting in the last ")

    def label() -> str:
        return page.find(".chart > svg").get_attribute("aria-label") or ""

    wait_until(lambda: re.fullmatch(now + r"\d+ minutes?\.", label()), why=label())


def test_the_list_says_that_its_bars_are_logarithmic(page: Page, http: httpx.Client, queue: str) -> None:
    http.post(f"/q/{queue}", data={"value": "x"})
    page.open()
    page.wait_for(".log-scale", "logarithmic")
    page.look_like(390)
    assert page.text(".log-scale") == "", "a phone shows no bars"


def test_missing_samples_are_a_gap_and_no_zero(page: Page) -> None:
    page.open()
    drawn = draw(page, (600, 5, 0, 0), (590, 5, 20, 20), (60, 5, 90, 90), (50, 5, 90, 90), (0.1, 5, 90, 90), now=NOON)
    assert [len(line) for line in drawn["depth-line"]] == [2, 2, 1]
    assert {y for line in drawn["depth-line"] for _, y in line} == {drawn["depth-line"][0][0][1]}, "always five wait"
    assert [len(area) for area in drawn["in-area"]] == [4, 4], "what came during a gap has no known rate"
    heights = [max(ys) - min(ys) for ys in ([y for _, y in area] for area in drawn["in-area"])]
    assert heights[0] > 0 == heights[1]


def test_an_hour_has_a_point_for_ten_seconds_and_five_minutes_have_all(page: Page) -> None:
    page.open()
    every_second = [(second, second, 0, 0) for second in range(3000, -1, -1)]
    assert len(draw(page, *every_second, now=NOON)["depth-line"][0]) == 300
    page.press("5 min", ".chart")
    try:
        assert len(draw(page, *every_second, now=NOON)["depth-line"][0]) == 302, "one is left of the chart's start"
    finally:
        page.press("1 h", ".chart")


def test_samples_of_the_server_fill_what_the_page_has_missed(page: Page) -> None:
    page.open()
    joined = page.browser.execute_async_script(
        """
        const done = arguments[0];
        const told = [0, 10, 20, 30, 40].map((second) => ({ time: second * 1000, by: "server" }));
        const own = [3, 4, 5, 6, 38, 39].map((second) => ({ time: second * 1000, by: "page" }));
        const { fetch } = window;
        window.fetch = async () => Response.json({ samples: told, waiting: {}, taken: {} });
        import("./static/samples.js").then(async ({ LastHour }) => {
          const history = new LastHour("/somewhere");
          await history.refresh({ unbrokenSince: 1, queues: new Map() });
          window.fetch = fetch;
          done(history.join(own).map(({ time, by }) => [time / 1000, by]));
        });
        """
    )
    assert [second for second, by in joined if by == "page"] == [3, 4, 5, 6, 38, 39]
    assert [second for second, by in joined if by == "server"] == [20, 30], "0, 10 and 40 are beside the page's own"
    assert joined == sorted(joined)


def test_an_open_page_keeps_its_samples_when_a_restarted_server_has_none(page: Page) -> None:
    page.open()
    kept = page.browser.execute_async_script(
        """
        const done = arguments[0];
        const { fetch } = window;
        const now = performance.now;
        let later = 0;
        performance.now = () => now.call(performance) + later;
        const seen = [];
        import("./static/samples.js").then(async ({ LastHour }) => {
          const history = new LastHour("/somewhere");
          const answer = async (connection, ...times) => {
            const samples = times.map((time) => ({ time }));
            window.fetch = async () => Response.json({ samples, waiting: {}, taken: {} });
            await history.refresh({ unbrokenSince: connection, queues: new Map() });
            seen.push(history.join([]).map(({ time }) => time));
          };
          await answer(1, 100000, 110000);
          await answer(1, 120000);
          later += 5 * 60000;
          await answer(1, 110000, 130000);
          later += 6000;
          await answer(2);
          later += 6000;
          await answer(3, 200000);
          later += 6000;
          await answer(4, 3705000);
          later += 6000;
          sessionStorage.setItem("restmq.token", "another");
          await answer(5, 210000);
          sessionStorage.removeItem("restmq.token");
          window.fetch = fetch;
          performance.now = now;
          done(seen);
        });
        """
    )
    assert kept == [
        [100_000, 110_000],
        [100_000, 110_000],  # not asked again so soon
        [100_000, 110_000, 130_000],
        [100_000, 110_000, 130_000],  # the page has connected anew, and the server has no samples
        [100_000, 110_000, 130_000, 200_000],
        [110_000, 130_000, 200_000, 3_705_000],  # an hour is kept
        [210_000],  # another token may see less
    ]
