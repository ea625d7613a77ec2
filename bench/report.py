"""Renders figures as a Markdown table and a plot."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rig import ROOT, Run, median

if TYPE_CHECKING:
    from suite import Figure

PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "performance.svg"
_PLACE = re.compile(r"(<!-- bench/run writes from here -->\n).*?(<!-- to here -->)", re.DOTALL)


def figures(measured: Sequence[Figure], of: str, notes: Sequence[str], before: str) -> str:
    """Returns the table, followed by the notes."""
    shown = [figure for figure in measured if figure.runs]
    rates = {figure.what: _median(figure.runs, "rate") for figure in shown}
    head = ["load", "per second", "ratio", "to", "aim", "p50 ms", "p99 ms", "failed"]
    if before:
        head.insert(2, "before")
        head.insert(3, "ratio to before")
    rows: list[list[object]] = []
    for figure in shown:
        rate, beside = rates[figure.what], rates.get(figure.beside)
        p50, p99 = _median(figure.runs, "p50_ms"), _median(figure.runs, "p99_ms")
        row = [f"{round(rate):,} {figure.unit}" if rate else "", rate / beside if rate and beside else ""]
        row = [figure.what, *row, figure.beside if beside else "", figure.aim, p50, p99, _failed(figure.runs)]
        if before:
            row[2:2] = _compared(figure, rate, p50)
        rows.append(row)
    cores = len(os.sched_getaffinity(0))
    lines = [f"Medians of {of}, {cores} cores shared by servers, clients and Redis."]
    if before:
        lines.append(f"*Before* is revision {before}.")
    return "\n\n".join([" ".join(lines), _table(head, rows), *notes]) + "\n"


def _compared(figure: Figure, rate: float | None, p50: float | None) -> list[object]:
    """Returns the earlier value and the improvement: of the rate if there is one, otherwise of the time."""
    if not figure.before:
        return ["", ""]
    if rate is not None:
        was = _median(figure.before, "rate")
        assert was is not None
        return [f"{round(was):,}", rate / was]
    was = _median(figure.before, "p50_ms")
    assert was is not None
    assert p50 is not None
    return [f"p50 {was:.2f} ms", was / p50]


def _median(runs: Sequence[Run], name: str) -> float | None:
    values = [getattr(run, name) for run in runs]
    return None if None in values else median(values)


def _failed(runs: Sequence[Run]) -> int:
    return sum(run.failed for run in runs)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def show(cell: object) -> str:
        if isinstance(cell, float):
            return f"{cell:.2f}"
        return "" if cell is None else str(cell)

    lines = [head, ["---"] * len(head), *[[show(cell) for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(measured: Sequence[Figure]) -> str:
    """Returns an SVG with a bar for each figure in requests or pairs per second; those of hello are grey."""
    bars = [
        (figure.what, rate)
        for figure in measured
        if figure.unit in ("requests", "pairs") and (rate := _median(figure.runs, "rate"))
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
