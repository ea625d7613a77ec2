"""systemd accepts the units and rates their sandbox as tight. test_machine.py runs them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT

pytestmark = pytest.mark.needs("systemd-analyze")

#: Of 10.0. systemd says OK to less than 2.
EXPOSURE_MAX = 1.6


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Copies of the units, with the path of a twistd that exists."""
    folder = tmp_path / "units"
    folder.mkdir()
    for name in ("restmq.service", "restmq.socket"):
        shutil.copy(ROOT / "start_scripts" / name, folder)
    (folder / "restmq.service.d").mkdir()
    for file in (folder / "restmq.service", folder / "restmq.service.d" / "socket.conf"):
        text = (ROOT / "start_scripts" / file.relative_to(folder)).read_text()
        assert "/opt/restmq/bin/twistd" in text
        file.write_text(text.replace("/opt/restmq/bin/twistd", str(Path(sys.executable).with_name("twistd"))))
    return folder


def analyze(units: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], cwd=units, capture_output=True, text=True, timeout=60)


def test_systemd_accepts_the_service(units: Path) -> None:
    shutil.rmtree(units / "restmq.service.d")
    checked = analyze(units, "verify", "./restmq.service")
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_systemd_accepts_the_service_with_its_socket(units: Path) -> None:
    checked = analyze(units, "verify", "./restmq.service", "./restmq.socket")
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_systemd_reports_a_mistake(units: Path) -> None:
    with (units / "restmq.service.d" / "socket.conf").open("a") as drop_in:
        drop_in.write("NoNewPrivilege=yes\n")
    assert "NoNewPrivilege" in analyze(units, "verify", "./restmq.service", "./restmq.socket").stderr


def test_the_sandbox_is_tight(units: Path) -> None:
    checked = analyze(units, "security", "--offline=true", f"--threshold={EXPOSURE_MAX * 10:.0f}", "./restmq.service")
    assert checked.returncode == 0, checked.stdout
    assert "Overall exposure level for restmq.service" in checked.stdout
