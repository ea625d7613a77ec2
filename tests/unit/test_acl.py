"""The rules of acl.conf."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.logger import capturedLogs, formatEvent

from restmq.auth.acl import Acl, parse_hosts, read_rules
from restmq.errors import ConfigurationError


def rules(folder: Path, text: str) -> Path:
    path = folder / "acl.conf"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    ("allow", "deny", "admitted", "refused"),
    [
        ("", "", ["203.0.113.1", "::1", "unix"], []),
        ("all", "", ["203.0.113.1", "unix"], []),
        ("", "all", [], ["127.0.0.1", "::1", "unix"]),
        ("10.0.0.1", "", ["10.0.0.1", "::ffff:10.0.0.1"], ["10.0.0.2", "unix"]),
        ("192.168.0.", "", ["192.168.0.0", "192.168.0.255"], ["192.168.1.1"]),
        ("10.", "", ["10.255.1.1"], ["11.0.0.1"]),
        ("10.1.0.0/16, 2001:db8::/32", "", ["10.1.2.3", "2001:db8::5"], ["10.2.0.1", "2001:db9::1"]),
        ("10.0.0.0/8", "10.6.6.6", ["10.0.0.1"], ["10.6.6.6", "192.0.2.1"]),
        ("all", "10.6.6.6", ["10.0.0.1", "unix"], ["10.6.6.6"]),
        ("10.0.0.1", "all", ["10.0.0.1"], ["10.0.0.2"]),
        ("10.0.0.1", "10.0.0.2", ["10.0.0.1"], ["10.0.0.2", "10.0.0.3"]),  # in neither list when both are set
        ("", "10.0.0.2", ["10.0.0.1"], ["10.0.0.2"]),
        ("::1", "", ["::1"], ["127.0.0.1"]),
        ("fe80::1", "", ["fe80::1%eth0"], []),
    ],
)
def test_hosts_are_admitted_or_refused(
    tmp_path: Path, allow: str, deny: str, admitted: list[str], refused: list[str]
) -> None:
    text = f"[rest:consumer]\nhosts_allow = {allow}\nhosts_deny = {deny}\n"
    section = read_rules(rules(tmp_path, text))["rest:consumer"]
    assert [host for host in admitted if not section.admits(host)] == []
    assert [host for host in refused if section.admits(host)] == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[rest:consumer]\nusername = bob\n", "section [rest:consumer], line 1: a password is missing"),
        ("\n[rest:consumer]\npassword = x\n", "section [rest:consumer], line 2: a username is missing"),
        ("[rest:consumer]\n\nhosts_allow = 10.0.0.1 localhost\n", "section [rest:consumer], line 3: hosts_allow"),
        ("[rest:consumer]\nhosts_deny = 10.0.0.300\n", "line 2: hosts_deny"),
        ("[rest:consumer]\nhosts_deny = 10.0.0.0/40\n", "line 2: hosts_deny"),
        ("[rest:everybody]\n", "section [rest:everybody], line 1: unknown section"),
        ("[DEFAULT]\nhosts_deny = all\n", "section [DEFAULT], line 1: unknown section"),
        ("[rest:consumer]\nhost_allow = all\n", "section [rest:consumer], line 2: unknown key 'host_allow'"),
        ("[rest:consumer]\nnonsense\n", "line 2"),
        ("hosts_allow = all\n", "line 1"),
        ("[rest:consumer]\n[rest:consumer]\n", "line 2"),
        ("[rest:consumer]\nusername = a\npassword = scrypt:nonsense\n", "not a valid scrypt hash"),
    ],
)
def test_an_error_names_file_section_and_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_rules(rules(tmp_path, text))
    assert says in str(refused.value)
    assert str(tmp_path / "acl.conf") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_byte_order_mark_before_the_rules_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "acl.conf"
    path.write_bytes(b"\xef\xbb\xbf[rest:consumer]\r\nhosts_deny = all\r\n")
    assert not read_rules(path)["rest:consumer"].admits("127.0.0.1")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.conf"):
        read_rules(tmp_path / "nowhere.conf")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        read_rules(tmp_path / "binary")


@pytest.mark.parametrize("password", ["secret", "p%:ü", "100%", "a:b:c", "%(x)s", "a = b"])
def test_a_password_is_read_exactly(tmp_path: Path, password: str) -> None:
    section = read_rules(rules(tmp_path, f"[rest:consumer]\nusername = al:ice\npassword = {password}\n"))[
        "rest:consumer"
    ]
    assert (section.username, section.password) == ("al:ice", password)


def test_an_invalid_change_keeps_the_old_rules(tmp_path: Path) -> None:
    path = rules(tmp_path, "[rest:consumer]\nhosts_deny = all\n")
    acl = Acl(path)
    with capturedLogs() as events:
        acl.reload_if_changed()
        assert not events
        rules(tmp_path, "[rest:consumer]\nhosts_deny = all\n[rest:nonsense]\n")
        acl.reload_if_changed()
        acl.reload_if_changed()  # reported once, not at every check
        assert not acl.section("rest:consumer").admits("127.0.0.1")
        path.unlink()
        acl.reload_if_changed()
    unknown, unreadable = map(formatEvent, events)
    assert "unknown section" in unknown
    assert unknown.endswith("The old access rules stay in force.")
    assert "cannot be read" in unreadable


def test_a_file_that_comes_later_is_read_and_stays_in_force_when_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "acl.conf"
    acl = Acl(path, is_optional=True)
    with capturedLogs() as events:
        acl.reload_if_changed()
        assert not events
        acl.reload()  # at SIGHUP
        assert acl.section("rest:consumer").admits("127.0.0.1")
        rules(tmp_path, "[rest:consumer]\nhosts_deny = all\n")
        acl.reload_if_changed()
        assert not acl.section("rest:consumer").admits("127.0.0.1")
        path.unlink()
        acl.reload_if_changed()
        assert not acl.section("rest:consumer").admits("127.0.0.1")
    missing, come, gone = map(formatEvent, events)
    assert missing == f"there are no access rules in {path} yet: all is open."
    assert come == f"the access rules of {path} are in force."
    assert gone.endswith("The old access rules stay in force.")


def test_what_is_no_readable_file_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    path = tmp_path / "acl.conf"
    acl = Acl(path, is_optional=True)
    path.mkdir()  # as Docker makes it for a mounted file that does not exist
    with capturedLogs() as events:
        acl.reload_if_changed()
    assert formatEvent(events[0]).endswith("cannot be read: Is a directory. The old access rules stay in force.")
    link = tmp_path / "link.conf"
    link.symlink_to("nothing")
    file = tmp_path / "file"
    file.touch()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (path, link, file / "acl.conf", pipe):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            Acl(place, is_optional=True)


def test_a_list_of_hosts_may_use_commas_and_blanks() -> None:
    assert len(parse_hosts("10.0.0.1,10.0.0.2 10.0.0.3 , ::1").networks) == 4
