"""Passwords of ``acl.conf``, and their scrypt hashes (RFC 7914).

A hash takes 50 ms of CPU on purpose, so whoever sends passwords could stop the server. Rules:

1. A hash is computed in a thread, one at a time. OpenSSL does it without Python's lock, so the event loop goes on.
2. At most ``WAITING_MAX`` different passwords wait for the thread. Further ones are refused.
3. Clients with the same password share one computation.
4. Verdicts are remembered. Right passwords are remembered apart from wrong ones, so guesses do not push them out.
   A remembered password needs no thread, so it is accepted at once while guesses fill the queue.
5. Memory holds no password: verdicts are found by a keyed hash with a random key, whose lookup time tells nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet import defer, threads

from restmq.errors import Overloaded

WAITING_MAX = 20
_PREFIX = "scrypt:"
_COST = 2**14
_VERDICTS_MAX = 1000


def hash_password(password: str) -> str:
    """A salted hash for ``acl.conf`` in place of the password: ``scrypt:<salt>$<hash>`` (N=16384)."""
    salt = base64.b64encode(secrets.token_bytes(16)).decode()
    return _scrypt(password.encode(), _PREFIX + salt)


def is_hashed(stored: str) -> bool:
    """Whether ``acl.conf`` has a hash instead of the password."""
    return stored.startswith(_PREFIX)


def is_valid_hash(stored: str) -> bool:
    salt, _, derived = stored.removeprefix(_PREFIX).partition("$")
    try:
        return len(base64.b64decode(salt, validate=True)) > 0 and len(base64.b64decode(derived, validate=True)) == 32
    except binascii.Error:
        return False


def matches(stored: str, password: bytes) -> bool:
    """Whether a password is the stored one, compared in constant time. Takes 50 ms if it is hashed."""
    expected = _scrypt(password, stored.split("$")[0]).encode() if is_hashed(stored) else password
    return hmac.compare_digest(expected, stored.encode())


def _scrypt(password: bytes, prefix: str) -> str:
    salt = base64.b64decode(prefix.removeprefix(_PREFIX), validate=True)
    derived = hashlib.scrypt(password, salt=salt, n=_COST, r=8, p=1, dklen=32)
    return f"{prefix}${base64.b64encode(derived).decode()}"


class KeyedHash:
    """A hash with a random key, by which secrets are recognised that must not be kept."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def __call__(self, *parts: bytes) -> bytes:
        hashed = hashlib.blake2b(key=self._key, digest_size=16)
        for part in parts:
            hashed.update(b"%d:%b" % (len(part), part))
        return hashed.digest()


class PasswordCheck:
    """Compares passwords, without holding the event loop.

    Args:
        in_thread: runs a function in a thread.
    """

    def __init__(self, in_thread: Callable[..., defer.Deferred[Any]] = threads.deferToThread) -> None:
        self._in_thread = in_thread
        self._hash = KeyedHash()
        self._right: OrderedDict[bytes, bool] = OrderedDict()
        self._wrong: OrderedDict[bytes, bool] = OrderedDict()
        self._waiting: dict[bytes, list[defer.Deferred[bool]]] = {}
        self._thread = defer.DeferredLock()

    async def is_right(self, stored: str, password: bytes) -> bool:
        """Whether a password is the stored one. Raises Overloaded if too many wait to be compared."""
        if not is_hashed(stored):
            return matches(stored, password)
        digest = self._hash(stored.encode(), password)
        if digest in self._right or digest in self._wrong:
            return digest in self._right
        verdict: defer.Deferred[bool] = defer.Deferred()
        if digest in self._waiting:
            self._waiting[digest].append(verdict)
        elif len(self._waiting) >= WAITING_MAX:
            raise Overloaded("the server is busy with checking passwords; try again in a moment.")
        else:
            self._waiting[digest] = [verdict]
            self._thread.run(self._in_thread, matches, stored, password).addBoth(self._tell, digest)
        right: bool = await verdict
        return right

    def _tell(self, result: Any, digest: bytes) -> None:
        if isinstance(result, bool):
            verdicts = self._right if result else self._wrong
            verdicts[digest] = True
            if len(verdicts) > _VERDICTS_MAX:
                verdicts.popitem(last=False)
        for waiting in self._waiting.pop(digest):
            waiting.callback(result)
