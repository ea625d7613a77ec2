"""RestMQ as a package: after ``pip install .`` it works without the checkout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.servers import ROOT, Daemon, Redis, stopping


@pytest.mark.needs("git")
def test_pip_install_gives_a_working_twistd_restmq(private_folder: Path, redis: Redis) -> None:
    environment = private_folder / "venv"
    venv.create(environment)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python")]
    sources = private_folder / "sources"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:  # a build must not write into the checkout
        if (ROOT / name).is_file():
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            (sources / name).write_bytes((ROOT / name).read_bytes())
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
