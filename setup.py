"""RestMQ as a package.

cyclone 1.3 works with current Twisted, but its metadata pins Twisted 19, so it cannot be a normal requirement: pip
would fail, or install a Twisted that does not compile. The command ``bundle_cyclone`` installs cyclone without its
dependencies. It is part of every build, so ``pip install .`` is enough; the start scripts call it too.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Command, find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
CYCLONE = "cyclone==1.3"


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
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*pip, "--no-compile", "--target", folder, CYCLONE], check=True)
            # Copy only the code: cyclone's twistd plugin fails on Python 3.12, and pip warns about its metadata.
            shutil.copytree(Path(folder) / "cyclone", target)


class BuildWithCyclone(build_py):
    """Adds cyclone to every build."""

    def run(self):
        super().run()
        self.run_command("bundle_cyclone")


def version():
    text = (HERE / "restmq" / "__init__.py").read_text("utf-8")
    return text.split('__version__ = "')[1].split('"')[0]


setup(
    name="restmq",
    version=version(),
    description="A message queue you use over plain HTTP, with its data in Redis",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    install_requires=(HERE / "requirements.txt").read_text("utf-8").split("\n"),
    packages=[*find_packages(include=["restmq", "restmq.*"]), "twisted.plugins"],
    package_data={"restmq": ["queues/lua/*.lua", "templates/*.html", "static/*", "acl.conf", "py.typed"]},
    py_modules=["restmq_engine"],
    entry_points={"console_scripts": ["restmq = restmq.cli:main", "restmq-engine = restmq_engine:main"]},
    cmdclass={"bundle_cyclone": BundleCyclone, "build_py": BuildWithCyclone},
    zip_safe=False,
)
