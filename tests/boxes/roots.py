"""Debian roots, and programs that run in one of them in namespaces of their own."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STEP_SECONDS = 600

# If this machine reaches the package index through a proxy or a mirror, builds must use it too.
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_DEFAULT_TIMEOUT")
CERTIFICATES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
DPKG_SETTINGS = "force-unsafe-io\n" + "".join(
    f"path-exclude /usr/share/{name}/*\n" for name in ("doc", "man", "locale")
)
# Roots made by debootstrap, which takes half a minute of CPU. Packages installed later come from today's index.
KEPT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "restmq-tests"
KEPT_SECONDS = 7 * 86_400
CERTIFICATES_INSIDE = "/etc/build-certificates.pem"


def debootstrap(suite: str, target: Path, *packages: str) -> None:
    """Makes a minimal Debian. It has the certificates with which this machine checks its package index."""
    kept = KEPT / f"{'-'.join([suite, *packages])}.tar"
    if kept.exists() and time.time() - kept.stat().st_mtime < KEPT_SECONDS:
        target.mkdir()
        _run(["tar", "--extract", "--file", str(kept), "--directory", str(target)])
    else:
        included = [f"--include={name}" for name in packages]
        _run(["env", "DPKG_FORCE=unsafe-io", "debootstrap", "--variant=minbase", *included, suite, str(target)])
        for package in target.glob("var/cache/apt/archives/*.deb"):
            package.unlink()
        KEPT.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(f".{os.getpid()}")
        _run(["tar", "--create", "--file", str(unfinished), "--directory", str(target), "."])
        unfinished.rename(kept)
    named = (os.environ.get(variable, "") for variable in CERTIFICATES)
    source = next((path for path in named if Path(path).is_file()), None)
    if source is not None:
        shutil.copyfile(source, f"{target}{CERTIFICATES_INSIDE}")
    # As in Docker's images: packages do not start their services, nothing waits for the disk, and neither manuals nor
    # translations are installed.
    (target / "etc/dpkg/dpkg.cfg.d/docker").write_text(DPKG_SETTINGS)
    (target / "etc/apt/apt.conf.d/docker").write_text('Acquire::Languages "none";\n')
    policy = target / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)


def build_environment(root: Path) -> dict[str, str]:
    """Variables for RUN steps beside the image's environment, like Docker's build arguments."""
    found = {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)}
    if Path(f"{root}{CERTIFICATES_INSIDE}").exists():
        found["PIP_CERT"] = CERTIFICATES_INSIDE
    return {"DEBIAN_FRONTEND": "noninteractive", **found}


def in_root(root: Path, command: list[str], env: dict[str, str], user: str = "0:0", cwd: str = "/") -> None:
    """Runs a command in a root, as process 1 of a process namespace. It must succeed."""
    inside = f"cd {shlex.quote(cwd)} && exec {shlex.join(command)}"
    _run(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={root}/proc"),
            *("chroot", f"--userspec={user}", str(root), "/usr/bin/env", "-i", f"PATH={PATH}"),
            *(f"{name}={value}" for name, value in env.items()),
            *("/bin/sh", "-c", inside),
        ]
    )


def _run(command: list[str]) -> None:
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=STEP_SECONDS
    )
    if result.returncode != 0:
        said = result.stdout.decode(errors="replace")[-4000:]
        raise RuntimeError(f"{shlex.join(command)} ended with {result.returncode}: {said}")


@functools.cache
def namespaces_are_allowed() -> bool:
    """Whether this account may make namespaces. In a container even root often may not."""
    attempt = ["unshare", "--mount", "--pid", "--net", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(attempt, stderr=subprocess.DEVNULL).returncode == 0


class Running:
    """A program in namespaces of its own. Its process 1 is the child of one of our processes."""

    process: subprocess.Popen[bytes]

    @property
    def process_1(self) -> int:
        """The pid of its process 1 on this machine."""
        task = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return int(Path(task).read_text().split()[0])

    def from_outside(self, *command: str) -> str:
        """Runs a command of this machine in the network inside, and returns its output."""
        enter = ["nsenter", "--net", "--target", str(self.process_1), "--", *command]
        return subprocess.run(enter, stdout=subprocess.PIPE, check=True, text=True, timeout=60).stdout.strip()
