"""The rules of ``acl.conf``: access by address and password.

Each kind of client has a section with ``hosts_allow``, ``hosts_deny``, ``username`` and ``password``. A missing key
restricts nothing. The rules for a host's address, in this order:

1. An address in ``hosts_deny`` is refused.
2. An address in ``hosts_allow`` is admitted.
3. If ``hosts_deny`` says ``all``, the address is refused.
4. Else it is admitted if ``hosts_allow`` is not set or says ``all``.
"""

from __future__ import annotations

import configparser
import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EINVAL
from functools import partial
from pathlib import Path

from twisted.logger import Logger

from restmq.auth.passwords import is_hashed, is_valid_hash
from restmq.errors import ConfigurationError

log = Logger()

SECTIONS = ("rest:producer", "rest:consumer", "comet:consumer", "websocket:consumer")
#: Name of configparser's section of defaults. No line can have this name, so acl.conf can't have such a section.
_NO_SECTION = "\n"
_OPTIONS = ("hosts_allow", "hosts_deny", "username", "password")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(slots=True, frozen=True)
class Hosts:
    """A list of networks; ``everybody`` if the list says ``all``."""

    networks: tuple[Network, ...] = ()
    everybody: bool = False

    def contains(self, address: IPAddress | None) -> bool:
        """Whether one of the networks contains the address."""
        return address is not None and any(address in network for network in self.networks)

    def __bool__(self) -> bool:
        return self.everybody or bool(self.networks)


@dataclass(slots=True)
class Section:
    """The rules for one kind of client; ``is_open`` if there are none."""

    allow: Hosts = field(default_factory=Hosts)
    deny: Hosts = field(default_factory=Hosts)
    username: str = ""
    password: str = ""
    is_open: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_open = not (self.allow or self.deny or self.password)

    def admits(self, address: str) -> bool:
        """Whether the rules admit a client with this address."""
        if self.is_open:
            return True
        parsed = parse_address(address)
        if self.deny.contains(parsed):
            return False
        if self.allow.contains(parsed):
            return True
        if self.deny.everybody:
            return False
        return self.allow.everybody or not self.allow


class Acl:
    """The rules of a file. If the file is changed and invalid, all the old rules stay in force.

    Args:
        is_optional: whether the file may be missing at first; until it is there, nothing is restricted. A directory, a
            broken link, or a place that may not be looked into is no missing file: there may be rules.
    """

    def __init__(self, path: str | os.PathLike[str], is_optional: bool = False) -> None:
        """Raises ConfigurationError, with file, section and line, if the file is invalid or missing."""
        self._path = Path(path)
        self._stamp_read = self._stamp()
        self._is_awaited = is_optional and self._is_missing()
        self._sections = {name: Section() for name in SECTIONS} if self._is_awaited else read_rules(self._path)

    def section(self, name: str) -> Section:
        return self._sections[name]

    def reload_if_changed(self) -> None:
        if self._stamp() != self._stamp_read:
            self.reload()

    def reload(self) -> None:
        """Reads the file again, and logs whether its rules are in force."""
        self._stamp_read = self._stamp()
        self._is_awaited = self._is_awaited and self._is_missing()
        if self._is_awaited:
            log.info("there are no access rules in {path} yet: all is open.", path=self._path)
            return
        try:
            self._sections = read_rules(self._path)
        except ConfigurationError as problem:
            log.error("{problem} The old access rules stay in force.", problem=problem)
        else:
            log.info("the access rules of {path} are in force.", path=self._path)

    def _is_missing(self) -> bool:
        try:
            self._path.lstat()
        except OSError as problem:
            return isinstance(problem, FileNotFoundError)
        return False

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def read_rules(path: Path) -> dict[str, Section]:
    """The sections of a file; a missing section restricts nothing. Raises ConfigurationError."""
    try:
        if path.is_fifo():  # a read could wait for ever
            raise OSError(EINVAL, "it is a pipe")
        text = path.read_text("utf-8-sig")  # some editors write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{path}: the access rules cannot be read: {reason}.") from None
    parser = configparser.ConfigParser(
        interpolation=None, delimiters=("=",), empty_lines_in_values=False, default_section=_NO_SECTION
    )
    try:
        parser.read_string(text, str(path))
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or (getattr(error, "errors", None) or [(0, "")])[0][0]
        raise ConfigurationError(
            f"{path}, line {line}: {type(error).__name__}; write [section] and key = value."
        ) from None
    sections = {name: Section() for name in SECTIONS}
    for name in parser.sections():
        if name not in SECTIONS:
            raise ConfigurationError(
                f"{_where(path, text, name)}: unknown section; the sections are {', '.join(SECTIONS)}."
            )
        sections[name] = _section(dict(parser[name]), partial(_where, path, text, name))
    return sections


def _section(options: dict[str, str], where: Callable[..., str]) -> Section:
    """The rules in a section. ``where`` describes the place of an option, or of the section."""
    for option in options:
        if option not in _OPTIONS:
            raise ConfigurationError(f"{where(option)}: unknown key {option!r}; the keys are {', '.join(_OPTIONS)}.")

    def hosts(option: str) -> Hosts:
        try:
            return parse_hosts(options.get(option, ""))
        except ValueError as error:
            raise ConfigurationError(f"{where(option)}: {option}: {error}.") from None

    section = Section(
        hosts("hosts_allow"), hosts("hosts_deny"), options.get("username", ""), options.get("password", "")
    )
    if bool(section.username) != bool(section.password):
        missing = "password" if section.username else "username"
        raise ConfigurationError(f"{where()}: a {missing} is missing; set both username and password, or neither.")
    if is_hashed(section.password) and not is_valid_hash(section.password):
        raise ConfigurationError(f"{where()}: the password is not a valid scrypt hash; make one with --hash-password.")
    return section


def parse_address(text: str) -> IPAddress | None:
    """Parses an address; IPv4 mapped into IPv6 becomes IPv4. None for other text, such as a Unix socket's peer."""
    try:
        parsed = ipaddress.ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def parse_hosts(words: str) -> Hosts:
    """Parses a list of addresses, networks, IPv4 prefixes such as ``192.168.0.``, and ``all``.

    Words are separated by blanks or commas. Raises ValueError for an invalid word.
    """
    networks: list[Network] = []
    everybody = False
    for word in words.replace(",", " ").split():
        if word.lower() == "all":
            everybody = True
        elif word.endswith(".") and word.count(".") in (1, 2, 3):
            octets = word.rstrip(".").split(".")
            networks.append(ipaddress.ip_network(".".join(octets + ["0"] * (4 - len(octets))) + f"/{8 * len(octets)}"))
        else:
            networks.append(ipaddress.ip_network(word, strict=False))
    return Hosts(tuple(networks), everybody)


def _where(path: Path, text: str, section: str, option: str = "") -> str:
    """The place of a section, or of an option in it."""
    line, inside = 0, False
    for number, words in enumerate(text.splitlines(), 1):
        stripped = words.strip()
        if stripped.startswith("["):
            inside = stripped == f"[{section}]"
        is_found = not option or stripped.partition("=")[0].strip().lower() == option
        if inside and is_found and not line:
            line = number
    return f"{path}, section [{section}], line {line}"
