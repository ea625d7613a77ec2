"""Renders figures as Markdown tables and a plot."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rig import ROOT

if TYPE_CHECKING:
    from figures import Figure

PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "performance.svg"
_PLACE = re.compile(r"(<!-- bench/run writes from here -->\n).*?(<!-- to here -->)", re.DOTALL)
_HEAD = [
    "load",
    "per second",
    "server µs",
    "Redis µs",
    "p50 ms",
    "p99 ms",
    "failed",
    "compared with",
    "by",
    "ratio",
    "aim",
]
_COMPARED = {"rate": "per second", "server_us": "server µs", "redis_us": "Redis µs"}
_BY = {"rate": "rate", "server_us": "server µs", "redis_us": "Redis µs", "cpu_us": "CPU"}


def tables(measured: Mapping[str, Sequence[Figure]], of: str, notes: Sequence[str], before: str) -> str:
    """Returns a table of each group of figures, a comparison with an earlier revision, and the notes."""
    known = {figure.what: figure for rows in measured.values() for figure in rows}
    cores = len(os.sched_getaffinity(0))
    parts = [f"Medians of {of}, {cores} cores shared by servers, clients and Redis."]
    for title, figures in measured.items():
        rows = [_row(figure, known.get(figure.beside)) for figure in figures if figure.runs or figure.missing]
        if rows:
            used = [n for n in range(len(_HEAD)) if n == 0 or any(row[n] not in (None, "") for row in rows)]
            parts += [f"### {title}", _table(_HEAD, rows, used)]
        if title == "Requests":
            parts += notes
    compared = [figure for figure in known.values() if figure.runs_before or figure.missing_before]
    if compared:
        head = [
            "load",
            *(part for name in _COMPARED.values() for part in (name, "before", "ratio")),
            "p50 ms",
            "before",
        ]
        rows = [_compared(figure) for figure in compared]
        parts += [f"### Beside revision {before}", _table(head, rows, range(len(head)))]
    return "\n\n".join(parts) + "\n"


def _row(figure: Figure, beside: Figure | None) -> list[object]:
    if figure.missing:
        return [figure.what, figure.missing, *[None] * (len(_HEAD) - 2)]
    rate = figure.median("rate")
    row: list[object] = [figure.what, rate and f"{round(rate):,} {figure.unit}".strip()]
    row += [figure.median("server_us"), figure.median("redis_us") or None]
    row += [figure.median("p50_ms"), figure.median("p99_ms"), sum(run.failed for run in figure.runs)]
    by = figure.by.split()
    pairs = [(figure.median(name), beside.median(name)) for name in by] if beside else []
    ratios = [_ratio(ours, theirs) for ours, theirs in pairs if ours and theirs]
    if ratios:
        return [*row, figure.beside, ", ".join(_BY[name] for name in by), ", ".join(ratios), figure.aim]
    return [*row, None, None, None, figure.aim]


def _ratio(one: float, other: float) -> str:
    return f"{one / other:.2f}" if one > other / 10 else f"{one / other:.2g}"


def _compared(figure: Figure) -> list[object]:
    """A row of the comparison. A ratio above 1 is an improvement."""
    row: list[object] = [figure.what]
    for name in (*_COMPARED, "p50_ms"):
        now, was = figure.median(name), figure.median_before(name)
        shown = "{:,.0f}" if name == "rate" else "{:.1f}"
        row += [shown.format(value) if value else None for value in (now, was)]
        if name != "p50_ms":
            row.append((_ratio(now, was) if name == "rate" else _ratio(was, now)) if now and was else None)
    if figure.missing_before:
        row[2] = figure.missing_before
    return row


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], columns: Sequence[int]) -> str:
    def show(cell: object) -> str:
        if isinstance(cell, float):
            return f"{cell:,.0f}" if cell >= 100 else f"{cell:.1f}" if cell >= 1 else f"{cell:.2g}"
        return "" if cell is None else str(cell)

    lines = [head, ["---"] * len(head), *[[show(cell) for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(line[n] for n in columns) + " |" for line in lines)


def plot(measured: Sequence[Figure]) -> str:
    """Returns an SVG with a bar for each figure in requests or pairs per second; those of hello are grey."""
    bars = [
        (figure.what, rate)
        for figure in measured
        if figure.unit in ("requests", "pairs") and (rate := figure.median("rate"))
    ]
    label, width, step = 330, 420, 24
    most = max(rate for _, rate in bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{label + width + 90}" height="{step * len(bars) + 34}" '
        'font-family="sans-serif" font-size="13">',
        "<title>Requests, or pairs of lease and ack, per second</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{label}" y="18" fill="#555">per second</text>',
    ]
    for number, (what, rate) in enumerate(bars):
        y, length = 28 + step * number, round(width * rate / most)
        colour = "#9aa3ad" if what.startswith("hello") else "#2f6fd0"
        parts += [
            f'<text x="{label - 8}" y="{y + 13}" text-anchor="end" fill="#222">{html.escape(what)}</text>',
            f'<rect x="{label}" y="{y}" width="{length}" height="{step - 7}" rx="2" fill="{colour}"/>',
            f'<text x="{label + length + 6}" y="{y + 13}" fill="#222">{round(rate):,}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def write(text: str, drawn: str) -> None:
    """Writes both into the documentation."""
    page = PAGE.read_text("utf-8")
    assert _PLACE.search(page), f"{PAGE} has no place for the figures"
    PAGE.write_text(_PLACE.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", page), "utf-8")
    PLOT.write_text(drawn, "utf-8")
