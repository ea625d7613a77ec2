"""RestMQ as a package.

cyclone 1.3 works with current Twisted, but its metadata pins Twisted 19, so it cannot be a normal requirement: pip
would fail, or install a Twisted that does not compile. The command ``bundle_cyclone`` installs cyclone without its
dependencies. It is part of every build, so ``pip install .`` is enough; the start scripts call it too. The wheel
declares it: in NOTICE, and in a bill of materials (PEP 770).
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Command, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
URL = "https://github.com/gleicon/restmq"
CYCLONE = "1.3"
CYCLONE_SHA256 = "adc1c8736bafc668f1f55236d1919cfb96c1f377831361deb73d633f0c1db779"

sys.path.insert(0, str(HERE / "restmq" / "server"))
import sbom  # noqa: E402


class BundleCyclone(Command):
    """Installs cyclone without its dependencies into a folder of packages."""

    description = "install cyclone without its outdated dependencies"
    user_options = [("into=", None, "target folder, such as the site-packages of a virtual environment")]

    def initialize_options(self):
        self.into = None

    def finalize_options(self):
        if self.into is None:
            self.into = self.get_finalized_command("build_py").build_lib

    def run(self):
        target = Path(self.into) / "cyclone"
        if target.is_dir():
            return
        with tempfile.TemporaryDirectory() as folder:
            wanted = Path(folder) / "cyclone.txt"
            wanted.write_text(f"cyclone=={CYCLONE} --hash=sha256:{CYCLONE_SHA256}\n")
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            # --only-binary: the hash is that of cyclone's wheel.
            pip += ["--no-compile", "--require-hashes", "--only-binary", "cyclone"]
            subprocess.run([*pip, "--target", f"{folder}/in", "--requirement", str(wanted)], check=True)
            # Copy only the code: cyclone's twistd plugin fails on Python 3.12, and pip warns about its metadata.
            shutil.copytree(Path(folder) / "in" / "cyclone", target)


class BuildWithCyclone(build_py):
    """Adds cyclone to every build."""

    def run(self):
        super().run()
        self.run_command("bundle_cyclone")


class WheelWithBill(bdist_wheel):
    """Adds a bill of the packages that the wheel contains."""

    def write_wheelfile(self, wheelfile_base, *args, **kwargs):
        super().write_wheelfile(wheelfile_base, *args, **kwargs)
        digest = {"alg": "SHA-256", "content": CYCLONE_SHA256}
        cyclone = sbom.component("cyclone", CYCLONE, hashes=[digest], licenses=[{"license": {"id": "Apache-2.0"}}])
        bills = Path(wheelfile_base) / "sboms"
        bills.mkdir(exist_ok=True)
        (bills / "restmq.cdx.json").write_text(json.dumps(sbom.bill(version(), [cyclone]), indent=1) + "\n")


def version():
    text = (HERE / "restmq" / "__init__.py").read_text("utf-8")
    return text.split('__version__ = "')[1].split('"')[0]


def readme():
    """The README with absolute links, because it is also shown where the other files are not."""
    text = re.sub(r"(!\[[^]]*\]\()(?!http)", rf"\1{URL}/raw/main/", (HERE / "README.md").read_text("utf-8"))
    return re.sub(r"(?<!!)(\[[^]]*\]\()(?!http|#)", rf"\1{URL}/blob/main/", text)


setup(
    name="restmq",
    version=version(),
    description="A message queue you use over plain HTTP, with its data in Redis",
    long_description=readme(),
    long_description_content_type="text/markdown",
    author="The RestMQ authors",
    url=URL,
    project_urls={
        "Documentation": f"{URL}/tree/main/docs",
        "Changelog": f"{URL}/blob/main/CHANGELOG.md",
        "Source": URL,
        "Issues": f"{URL}/issues",
    },
    keywords=["message queue", "job queue", "http", "rest", "redis", "comet", "websocket", "server-sent events"],
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Environment :: Console",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP :: HTTP Servers",
        "Topic :: Software Development :: Object Brokering",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    install_requires=(HERE / "requirements.txt").read_text("utf-8").split("\n"),
    extras_require={"asyncio": ["httpx>=0.27"]},
    packages=[*find_packages(include=["restmq", "restmq.*"]), "twisted.plugins"],
    package_data={"restmq": ["queues/lua/*.lua", "queues/lua/fifo/*.lua", "templates/*.html", "static/*", "py.typed"]},
    py_modules=["restmq_engine"],
    entry_points={"console_scripts": ["restmq = restmq.cli:main", "restmq-engine = restmq_engine:main"]},
    cmdclass={"bundle_cyclone": BundleCyclone, "build_py": BuildWithCyclone, "bdist_wheel": WheelWithBill},
    zip_safe=False,
)
