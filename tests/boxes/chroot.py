#!/usr/bin/env python3
"""Builds and runs the Dockerfile without Docker: its RUN, COPY and CMD steps, in a root that debootstrap makes.

    sudo python3 tests/boxes/chroot.py [FOLDER]

builds in FOLDER (a temporary one otherwise), starts the container with both ports, puts a message in, takes it out,
and stops it. Needs root, Linux namespaces, and the tools in TOOLS; takes one to two minutes and about 1 GB.
test_container.py uses the same parts.

These parts stand for Docker's: debootstrap for the base image, chroot and unshare for isolation, a network namespace
for the container's own network (so ports can't clash with anything on this machine), a bind mount for the volume, a
read-only root for ``docker run --read-only``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.boxes.dockerfile import Stage, ignore_patterns, is_ignored, read
from tests.boxes.roots import PATH, Running, build_environment, debootstrap, in_root

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ("debootstrap", "unshare", "nsenter", "ip", "mount", "curl", "redis-cli")
#: An address beyond loopback that only the container has: who listens there can be reached from outside.
ADDRESS = "172.30.0.2"


class Image:
    """The last stage of a Dockerfile, after the build."""

    def __init__(
        self, folder: Path, dockerfile: Path = ROOT / "Dockerfile", say: Callable[[str], None] = print
    ) -> None:
        self.context = dockerfile.parent
        self.ignored = ignore_patterns(self.context / ".dockerignore")
        self.roots: dict[str, Path] = {}
        stages = read(dockerfile)
        for stage in stages:
            self._build(stage, folder, say)
        self.stage = stages[-1]
        self.root = self.roots[self.stage.name]
        self.env = self._environments[self.stage.name]

    _environments: dict[str, dict[str, str]]

    def _build(self, stage: Stage, folder: Path, say: Callable[[str], None]) -> None:
        suite = stage.base.removeprefix("debian:").removesuffix("-slim")
        assert stage.base == f"debian:{suite}-slim", f"{stage.base} is no base that debootstrap can make"
        base, root = folder / suite, folder / f"stage-{stage.name}"
        if not base.exists():
            say(f"FROM {stage.base}")
            debootstrap(suite, base)
        subprocess.run(["cp", "-a", "--reflink=auto", base, root], check=True)
        self.roots[stage.name] = root
        user, cwd = "0:0", "/"
        env: dict[str, str] = {}
        for step in stage.steps:
            say(f"{step.name} {step.text[:100]}")
            match step.name:
                case "RUN":
                    in_root(root, ["/bin/sh", "-c", step.text], {**build_environment(root), **env}, user, cwd)
                case "COPY":
                    self._copy(step.words, step.flags.get("from"), root, cwd)
                case "ENV":
                    env.update(word.split("=", 1) for word in step.words)
                case "WORKDIR":
                    cwd = str(Path(cwd, step.text))
                    (root / cwd.lstrip("/")).mkdir(parents=True, exist_ok=True)
                case "USER":
                    user = step.text
        self._environments = {**getattr(self, "_environments", {}), stage.name: env}
        self.user, self.cwd = user, cwd

    def _copy(self, words: list[str], source_stage: str | None, root: Path, cwd: str) -> None:
        *sources, target = words
        destination = root / str(Path(cwd, target)).lstrip("/")
        into_folder = target.endswith("/") or len(sources) > 1
        for source in sources:
            place = destination / Path(source).name if into_folder else destination
            if source_stage is not None:
                place.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-a", f"{self.roots[source_stage]}{source}", place], check=True)
            else:
                self._copy_from_context(self.context / source, place)

    def _copy_from_context(self, source: Path, place: Path) -> None:
        files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        wanted = [file for file in files if not is_ignored(file.relative_to(self.context).as_posix(), self.ignored)]
        assert wanted, f"COPY {source}: there is no such file, or .dockerignore keeps it away"
        for file in wanted:
            copy = place if file == source else place / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            copy.chmod(0o755 if os.access(file, os.X_OK) else 0o644)


class Container(Running):
    """A running image: ENTRYPOINT and CMD as process 1, with namespaces of its own, a volume and a read-only root."""

    def __init__(self, image: Image, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.image = image
        self.log_path = folder / "container.log"
        (data,) = image.stage.words("VOLUME")
        volume = folder / "volume"
        if not volume.exists():  # a new volume is a copy of the image's folder, with its owner and mode
            subprocess.run(["cp", "-a", f"{image.root}{data}", volume], check=True)
        command = [*image.stage.words("ENTRYPOINT"), *(arguments or image.stage.words("CMD"))]
        root = shlex.quote(str(image.root))
        prepare = (
            f"mount --bind {root} {root}; mount --bind {shlex.quote(str(volume))} {root}{data};"
            f"mount -t proc proc {root}/proc; mount -t tmpfs tmpfs {root}/tmp; mount --bind -o remount,ro {root};"
            f"ip link set lo up; ip address add {ADDRESS}/32 dev lo;"
        )
        settings = [f"{name}={value}" for name, value in {"PATH": PATH, **image.env, **(env or {})}.items()]
        enter = ["chroot", f"--userspec={image.user}", str(image.root), "/usr/bin/env", "-i", f"--chdir={image.cwd}"]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *("unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"),
                    *("/bin/sh", "-ec", f"{prepare} exec {shlex.join([*enter, *settings, *command])}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.wait_for("listens on http")

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_for(self, words: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.log:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop(signal.SIGKILL)
                raise AssertionError(f"{words!r} does not come in the log: {self.log}")
            time.sleep(0.05)

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in the container, like ``docker exec``."""
        user, _, group = self.image.user.partition(":")
        enter = ["nsenter", "--target", str(self.process_1), "--mount", "--pid", "--net", "--root", "--wd"]
        enter += ["--setuid", user, "--setgid", group, "--", "/usr/bin/env", "-i", f"PATH={PATH}"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=60)

    def is_healthy(self) -> bool:
        """Runs HEALTHCHECK once. Returns whether it succeeds."""
        check = self.image.stage.last("HEALTHCHECK")
        assert check is not None
        command = json.loads(check.text.removeprefix("CMD "))
        return self.inside(*command).returncode == 0

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Sends process 1 the signal, as ``docker stop`` does, and returns its exit status."""
        if self.process.poll() is None:
            with contextlib.suppress(IndexError, FileNotFoundError, ProcessLookupError):
                os.kill(self.process_1, signal_number)
        return self.process.wait(60)


@contextlib.contextmanager
def running(image: Image, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Container]:
    """A container that is killed at the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    container = Container(image, folder, *arguments, env=env)
    try:
        yield container
    finally:
        container.stop(signal.SIGKILL)


def main() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        sys.exit(f"This needs root and: {' '.join(missing or TOOLS)}")
    with tempfile.TemporaryDirectory(prefix="restmq-chroot-") as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        folder.mkdir(parents=True, exist_ok=True)
        image = Image(folder)
        with running(image, folder / "run") as container:
            url = f"http://{ADDRESS}:8888/q/hello"
            print("put:", container.from_outside("curl", "-sS", "--fail", "-d", "value=hello", url))
            listed = container.from_outside("redis-cli", "-h", ADDRESS, "LRANGE", "hello:queue", "0", "-1")
            print("in the store:", listed)
            print("take:", container.from_outside("curl", "-sS", "--fail", url))
            print("exit status:", container.stop())


if __name__ == "__main__":
    main()
