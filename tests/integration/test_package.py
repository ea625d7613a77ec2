"""RestMQ as a package: after ``pip install .`` it works without the checkout."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.servers import ROOT, Daemon, Redis, stopping


def copy_of_the_sources(folder: Path) -> Path:
    """A copy of the tracked files, because a build writes into its sources."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def files_of(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.needs("git")
def test_a_source_distribution_builds_the_same_wheel_as_the_checkout(private_folder: Path) -> None:
    sources = copy_of_the_sources(private_folder / "sources")
    build = [sys.executable, "-m", "build", "--outdir", private_folder, sources]
    subprocess.run(build, check=True, capture_output=True)  # the wheel is made from the source distribution
    (wheel,) = private_folder.glob("*.whl")
    subprocess.run([*build, "--wheel", "--outdir", private_folder / "direct"], check=True, capture_output=True)
    files = files_of(wheel)
    assert files == files_of(private_folder / "direct" / wheel.name)

    about = next(name for name in files if name.endswith("METADATA")).removesuffix("METADATA")
    bill = files[f"{about}sboms/restmq.cdx.json"].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    assert [part["purl"] for part in json.loads(bill)["components"]] == ["pkg:pypi/cyclone@1.3"]
    assert "cyclone/web.py" in files
    assert b"cyclone" in files[f"{about}licenses/NOTICE"]


@pytest.mark.needs("git")
def test_an_index_page_shows_who_made_it_and_links_that_work_there(private_folder: Path) -> None:
    sources = copy_of_the_sources(private_folder)
    egg_info = [sys.executable, "setup.py", "--quiet", "egg_info"]
    subprocess.run(egg_info, cwd=sources, check=True, capture_output=True)
    about = message_from_string((sources / "restmq.egg-info" / "PKG-INFO").read_text())
    assert all(about[field] for field in ("Author", "Home-page", "Keywords", "License", "Project-URL"))
    assert "Framework :: Twisted" in about.get_all("Classifier", [])
    links = re.findall(r"\]\(([^)]+)\)", str(about.get_payload()))
    assert len(links) > 15
    for link in links:
        assert link.startswith("https://"), link
        path = re.sub("^.*?/(blob|raw)/main/", "", link)
        assert path == link or (ROOT / path.partition("#")[0]).exists(), link


@pytest.mark.needs("git")
def test_pip_install_gives_a_working_twistd_restmq(private_folder: Path, redis: Redis) -> None:
    environment = private_folder / "venv"
    venv.create(environment)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python")]
    sources = copy_of_the_sources(private_folder / "sources")
    subprocess.run([*pip, "install", "--quiet", "--no-compile", sources], check=True, stderr=subprocess.DEVNULL)
    checked = subprocess.run([*pip, "check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout

    (installed,) = environment.glob("lib/*/site-packages/restmq")
    assert (installed / "py.typed").exists()  # PEP 561: type checkers may use what is annotated
    (about,) = installed.parent.glob("restmq-*.dist-info")
    (license_file,) = about.rglob("LICENSE")
    assert "Apache License" in license_file.read_text()

    daemon = Daemon(
        private_folder / "run",
        redis=redis,
        env={"PYTHONPATH": "", "PYTHONWARNINGS": "default"},
        twistd=[str(environment / "bin" / "twistd")],
    )
    with stopping(daemon), daemon.client() as http:
        assert http.post("/q/packaged", data={"value": "x"}).text == "packaged:1\r\n"  # Lua files are there
        assert http.get("/q/packaged").json()["value"] == "x"
        assert "RestMQ" in http.get("/j/packaged").text  # templates
        assert http.get("/dashboard").status_code == 200
        assert http.get("/static/main.js").status_code == 200
        stats = [environment / "bin" / "restmq", "--url", daemon.url, "stats", "--names"]
        shown = subprocess.run(stats, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True)
        assert (shown.returncode, "packaged" in shown.stdout.splitlines()) == (0, True), shown

    for command in ("collectd", "syslogd"):
        beside = Daemon(
            private_folder / command,
            redis=redis,
            env={"PYTHONPATH": ""},
            twistd=[str(environment / "bin" / "twistd")],
            plugin=command,
        )
        assert beside.stop() in (0, -signal.SIGTERM)
        beside.assert_no_tracebacks()

    subprocess.run(["rm", "-r", *environment.glob("lib/*/site-packages/cyclone")], check=True)
    without = subprocess.run(
        [environment / "bin" / "twistd", "-n", "restmq"],
        cwd=private_folder,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert without.returncode == 1
    assert without.stderr.splitlines()[-1] == "restmq: cyclone is missing; run: pip install --no-deps cyclone==1.3"
    assert "Traceback" not in without.stderr
