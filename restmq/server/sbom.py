"""Prints a software bill of materials (CycloneDX 1.6, JSON) of the machine: its Python and Debian packages.

``python -m restmq.server.sbom`` makes the bill of the container image. setup.py, which imports this file alone, makes
that of the wheel with ``bill``: the packages that the wheel contains.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import Any

_DEBIAN_FIELDS = "${Package} ${Version} ${Architecture}\n"


def component(name: str, version: str, where: str = "pypi", query: str = "", **more: Any) -> dict[str, Any]:
    """A package, identified by its package URL."""
    url = f"pkg:{where}/{name}@{version.replace('+', '%2B').replace('~', '%7E').replace(':', '%3A')}{query}"
    return {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url, **more}


def bill(version: str, parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The bill of RestMQ with these packages. It has no date, so that the same packages make the same bill."""
    components = sorted({part["bom-ref"]: part for part in parts}.values(), key=lambda part: str(part["bom-ref"]))
    restmq = component("restmq", version) | {"type": "application", "licenses": [{"license": {"id": "Apache-2.0"}}]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": restmq},
        "components": components,
        "dependencies": [{"ref": restmq["bom-ref"], "dependsOn": [part["bom-ref"] for part in components]}],
    }


def python_packages() -> Iterable[dict[str, Any]]:
    """The packages that this Python has, and those that they contain by their own bills (PEP 770)."""
    for found in metadata.distributions():
        if found.name != "restmq":
            yield component(found.name.lower().replace("_", "-"), found.version)
        for file in found.files or ():
            if "/sboms/" in str(file) and file.name.endswith(".cdx.json"):
                yield from json.loads(file.read_text())["components"]


def debian_packages() -> Iterable[dict[str, Any]]:
    """The installed Debian packages; none on another system."""
    if shutil.which("dpkg-query") is None:
        return
    query = ["dpkg-query", "--show", f"--showformat={_DEBIAN_FIELDS}"]
    for line in subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines():  # noqa: S603
        name, version, architecture = line.split()
        yield component(name, version, "deb/debian", f"?arch={architecture}")


def main() -> None:
    document = bill(metadata.version("restmq"), [*python_packages(), *debian_packages()])
    json.dump(document, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
