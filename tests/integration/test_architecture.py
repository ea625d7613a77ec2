"""docs/architecture.md is correct: table of packages, reasons for dependencies, and how-tos, which are run."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

import pytest

from tests.servers import ROOT, Comet, Daemon, Redis, listeners, stopping, wait_until

PAGE = (ROOT / "docs" / "architecture.md").read_text()

RUN = """
import sys
from restmq.web import ROUTES
from twisted.scripts.twistd import run

ROUTES[:0] = [("/depth/{queue}", DepthHandler), ("/values/{queue}", ValuesHandler)]
sys.argv[0] = "twistd"
run()
"""


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def first_cells(heading: str) -> list[str]:
    return [line.split(" | ")[0].strip("| ") for line in section(heading).splitlines() if line.startswith("| ")][1:]


def test_the_table_of_packages_is_complete_and_correct() -> None:
    told = {room.rstrip("/") for cell in first_cells("The packages") for room in re.findall(r"`([\w/]+)`", cell)}
    there = {path.name.removesuffix(".py") for path in (ROOT / "restmq").iterdir() if not path.name.startswith("__")}
    data = {"py.typed", "static", "templates"}
    assert told == there - data


def test_every_dependency_has_its_reason() -> None:
    rows = [line.split(" | ") for line in section("Built on").splitlines() if line.startswith("| ")][1:]
    told = {re.split(r" \d| \(", name)[0].lower() for row in rows for name in row[1].split(", ")}
    needed = re.findall(r"^[\w-]+", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert told == {name.lower() for name in needed} | {"cyclone"}
    for_tests = section("Built on").partition("For tests only:")[2].lower().replace("\n", " ")
    for name in re.findall(r"^[\w-]+", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE):
        if not name.startswith("types-"):
            word = name.lower().removeprefix("pytest-").removesuffix("-bin")
            assert word in for_tests, f"{name}: say in docs/architecture.md what it is for"


def test_every_file_that_the_page_names_exists() -> None:
    for name in re.findall(r"`((?:\w+/)*\w+\.(?:py|lua|js|conf))`", PAGE):
        assert (ROOT / name).exists() or (ROOT / "restmq" / name).exists(), name
    for folder in re.findall(r"`((?:\w+/)+)`", PAGE):
        assert (ROOT / folder).is_dir() or (ROOT / "restmq" / folder).is_dir(), folder


@pytest.fixture
def extended(private_folder: Path, private_redis: Redis) -> Daemon:
    """A daemon with the code of the how-tos."""
    blocks = re.findall(r"^   ```python\n(.*?)^   ```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    program = private_folder / "extended.py"
    program.write_text("\n\n".join(textwrap.dedent(block) for block in blocks) + RUN)
    return Daemon(private_folder / "d", redis=private_redis, twistd=[sys.executable, str(program)])


def test_the_code_of_the_how_tos_works_and_is_described(extended: Daemon, private_redis: Redis) -> None:
    with stopping(extended), extended.client() as http:
        http.post("/q/jobs", data={"value": "dig"})
        assert http.get("/depth/jobs").text == "1\r\n"
        assert http.get("/depth/jobs?callback=f").text == 'f("1");\r\n'
        assert http.post("/depth/jobs").status_code == 405
        assert http.post("/queue", json={"cmd": "depth", "queue": "jobs"}).json() == {"queue": "jobs", "len": 1}
        values = Comet(extended, "/values/news")
        wait_until(lambda: listeners(private_redis, "news"))
        http.post("/q/news", data={"value": "extra"})
        assert values.lines(1, b"\n") == [b"extra"]
        values.close()
        wait_until(lambda: not listeners(private_redis, "news"))
        description = http.get("/openapi.json").json()
        assert description["paths"]["/depth/{queue}"]["get"]["summary"] == "The number of waiting messages"
        assert description["paths"]["/values/{queue}"]["get"]["x-endless"]
        commands = [each["title"] for each in description["components"]["schemas"]["Command"]["oneOf"]]
        assert commands[-1] == "depth"
