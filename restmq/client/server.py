"""A server's address and the client's credentials for it."""

from __future__ import annotations

import base64
import netrc
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from restmq.errors import InvalidInput

DEFAULT_URL = "http://127.0.0.1:8888"
URL_VARIABLE = "RESTMQ_URL"
TOKEN_VARIABLE = "RESTMQ_TOKEN"  # noqa: S105  its name, not its value
USER_VARIABLE = "RESTMQ_USER"
PASSWORD_VARIABLE = "RESTMQ_PASSWORD"  # noqa: S105


@dataclass(slots=True, frozen=True)
class Server:
    """A server's URL, and a token, or a username and password, if it requires them.

    A URL without a scheme, such as ``localhost:8888``, is one of http.

    Raises:
        InvalidInput: the URL is invalid, or the token has characters that a header can't hold.
    """

    url: str = DEFAULT_URL
    token: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    secure: bool = field(init=False, repr=False)
    host: str = field(init=False, repr=False)
    port: int = field(init=False, repr=False)
    #: Prefix of every path, for a proxy that serves RestMQ below another path; empty otherwise.
    prefix: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if "://" not in self.url:
            object.__setattr__(self, "url", f"http://{self.url}")
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            raise InvalidInput(f"{self.url!r} has an invalid port; use a number from 0 to 65535.") from None
        if parts.username is not None or parts.password is not None:
            raise InvalidInput(
                f"a URL must not hold a password; set {USER_VARIABLE} and {PASSWORD_VARIABLE}, or use ~/.netrc."
            )
        plain = self.url.isascii() and self.url.isprintable() and " " not in self.url
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or not plain:
            raise InvalidInput(
                f"{self.url!r} is not a server's URL; write it like {DEFAULT_URL} or https://mq.example/restmq."
            )
        if not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise InvalidInput("the token is invalid; use printable ASCII characters without spaces.")
        secure = parts.scheme == "https"
        for name, value in (
            ("secure", secure),
            ("host", parts.hostname),
            ("port", port if port is not None else (443 if secure else 80)),
            ("prefix", parts.path.rstrip("/")),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def from_environment(cls, url: str | None = None, environment: Mapping[str, str] = os.environ) -> Server:
        """The server at ``url``, else at RESTMQ_URL, else at the default URL on this machine.

        The credentials are RESTMQ_TOKEN, else RESTMQ_USER and RESTMQ_PASSWORD, else the entry for the server's host in
        the netrc file (the file named by NETRC, or ``~/.netrc``). Its ``default`` entry is ignored, because it would
        send a password to every server.

        Raises:
            InvalidInput: the URL or the token is invalid, or the netrc file can't be read.
        """
        url = url or environment.get(URL_VARIABLE) or DEFAULT_URL
        token = environment.get(TOKEN_VARIABLE, "")
        if token:
            return cls(url, token)
        username, password = environment.get(USER_VARIABLE, ""), environment.get(PASSWORD_VARIABLE, "")
        if not username:
            username, password = _from_netrc(environment, cls(url).host)
        return cls(url, "", username, password)

    @property
    def authorization(self) -> str:
        """The value of the Authorization header (RFC 6750, RFC 7617); empty without credentials."""
        if self.token:
            return f"Bearer {self.token}"
        if self.username:
            return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")
        return ""


def _from_netrc(environment: Mapping[str, str], host: str) -> tuple[str, str]:
    path = environment.get("NETRC") or str(Path.home() / ".netrc")
    try:
        username, _, password = netrc.netrc(path).hosts.get(host, ("", "", ""))
    except FileNotFoundError:
        return "", ""
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError) as problem:
        raise InvalidInput(f"{path} can't be read: {problem}.") from None
    return username or "", password or ""
