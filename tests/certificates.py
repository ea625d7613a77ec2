"""Certificates for tests, made by the real openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """A certificate authority of the test's own.

    Attributes:
        path: its certificate.
    """

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self.path = folder / f"{name}.crt"
        self._key = folder / f"{name}.key"
        subject = ("-subj", f"/CN=RestMQ test {name}")
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.path, "-days", "2", *subject)

    def issue(self, name: str, names: str = "DNS:localhost,IP:127.0.0.1") -> tuple[str, str]:
        """A certificate for these names and its private key, as paths."""
        key, request, certificate, extensions = (self._folder / f"{name}.{end}" for end in ("key", "csr", "crt", "ext"))
        extensions.write_text(f"subjectAltName={names}\n")
        _openssl("req", "-new", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        signed_by = ("-CA", self.path, "-CAkey", self._key, "-CAcreateserial", "-days", "2", "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, "-out", certificate, *signed_by)
        return str(certificate), str(key)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
