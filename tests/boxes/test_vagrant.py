"""Ruby and Vagrant accept the Vagrantfile. test_machine.py runs its provisioning script."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers import ROOT


@pytest.mark.needs("ruby")
def test_ruby_accepts_the_vagrantfile() -> None:
    checked = subprocess.run(["ruby", "-wc", ROOT / "Vagrantfile"], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "Syntax OK\n", "")


@pytest.mark.needs("vagrant")
@pytest.mark.parametrize(
    ("change", "answer"),
    [(("", ""), "Vagrantfile validated successfully."), (("config.vm.box =", "config.vm.bax ="), "bax")],
)
def test_vagrant_accepts_the_vagrantfile_and_reports_a_mistake(
    tmp_path: Path, change: tuple[str, str], answer: str
) -> None:
    (tmp_path / "Vagrantfile").write_text((ROOT / "Vagrantfile").read_text().replace(*change))
    checked = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=tmp_path,
        env={**os.environ, "VAGRANT_HOME": str(tmp_path / "home"), "VAGRANT_CHECKPOINT_DISABLE": "yes"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert answer in checked.stdout + checked.stderr
    assert (checked.returncode == 0) is (change == ("", ""))


def test_the_vagrantfile_runs_the_tested_script() -> None:
    assert "/vagrant/start_scripts/provision" in (ROOT / "Vagrantfile").read_text()
    assert shutil.which(ROOT / "start_scripts" / "provision")
