"""The single access check: an address and a password by ``acl.conf``, or a token, for a kind of access to a queue."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from restmq.auth.acl import Acl, Section
from restmq.auth.failures import Failures
from restmq.auth.passwords import PasswordCheck
from restmq.core import RedisOperations
from restmq.errors import NotAllowed, NotAuthenticated, RestMQError
from restmq.queues.tokens import Authorization


@dataclass(slots=True, frozen=True)
class Access:
    """The access that a route or a command requires: a section of ``acl.conf``, and a privilege of tokens.

    Attributes:
        all_queues: requires a token for ``*``, because the answer covers all queues.
    """

    section: str
    privilege: str
    all_queues: bool = False


CONSUME = Access("rest:consumer", "read")
PRODUCE = Access("rest:producer", "write")
LISTEN_COMET = Access("comet:consumer", "read")
LISTEN_WEBSOCKET = Access("websocket:consumer", "read")
CONFIGURE = Access("rest:producer", "admin")
PURGE = Access("rest:consumer", "admin")
WATCH = Access("rest:consumer", "read", all_queues=True)
#: For answers that contain other clients' addresses.
INSPECT = Access("rest:consumer", "admin")
#: For routes that neither show nor change any queue.
OPEN = Access("", "")
#: The queue is a query field; the handler checks access once it is parsed.
BY_FIELD = Access("", "by field")
#: The body holds a command; the dispatcher checks access once it is parsed.
BY_COMMAND = Access("", "by command")
#: The access that commands require.
OF_COMMANDS = (PRODUCE, CONSUME, CONFIGURE, PURGE)


@dataclass(slots=True, frozen=True)
class Credentials:
    """A client's address, and its password or token.

    Attributes:
        is_signed: whether the client signed its request with the secret of the token, in place of sending the token.
    """

    address: str
    username: str | None = None
    password: str = ""
    token: str | None = None
    is_signed: bool = False

    @property
    def secret(self) -> bytes:
        """The token, or username and password, as one value."""
        secret = f"{self.username}\n{self.password}" if self.token is None else self.token
        return secret.encode(errors="surrogateescape")


class WrongCredentials(NotAuthenticated):
    """The credentials are wrong, not only missing."""


class WrongSignature(WrongCredentials):
    """The signature of a request was not made with the token's secret."""


class Guard:
    """Checks access.

    Attributes:
        signs_always: whether requests that can be signed must be, whatever the rules say.
    """

    def __init__(self, acl: Acl, core: RedisOperations, failures: Failures, passwords: PasswordCheck) -> None:
        self.acl = acl
        self.signs_always = False
        self._core = core
        self._failures = failures
        self._passwords = passwords

    def is_open(self, address: str, access: Access) -> bool:
        """Whether a client with this address needs no password and no token."""
        section = self.acl.section(access.section)
        return section.is_open or (not section.password and section.admits(address))

    async def check(self, credentials: Credentials, access: Access, queue: str | None) -> None:
        """Raises NotAllowed, NotAuthenticated or TooManyFailures if the client lacks this access to the queue.

        Args:
            queue: None if the access is not about one queue; then see ``coverage``.
        """
        await self.check_any(credentials, (access,), queue)

    async def check_each(self, credentials: Credentials, access: Access, queues: Sequence[str]) -> None:
        """As ``check``, for several queues."""
        await self.check(credentials, access, queues[0])
        covers = await self.coverage(credentials)
        for queue in queues:
            if not covers(queue):
                raise NotAllowed(f"the token is not for the queue {queue!r}.")

    def has_password(self, access: Access) -> bool:
        """Whether the rules have a password for this access."""
        return bool(self.acl.section(access.section).password)

    async def must_sign(self, access: Access) -> bool:
        """Whether a client that can sign its requests must do so: with a password in force, or once a token signs."""
        return self.signs_always or self.has_password(access) or await self._core.has_signing_tokens()

    async def check_signature(self, address: str, token: str, is_right: Callable[[str], bool]) -> Credentials:
        """The credentials of a client that signed its request. Counts failures as ``check`` does.

        Args:
            is_right: whether the request was signed with this secret.

        Raises:
            WrongSignature: it was not.
            WrongCredentials: there is no such token, or it does not sign.
        """
        credentials = Credentials(address, token=token, is_signed=True)
        self._failures.check(address, credentials.secret)
        found = await self._core.authorization(token)
        self._failures.check(address, credentials.secret)
        if found is not None and found.secret and is_right(found.secret):
            return credentials
        self._failures.note_failure(address)
        if found is None or not found.secret:
            raise WrongCredentials("the access key is unknown; make one with --create-token --signing.")
        raise WrongSignature("the signature is wrong; check the secret access key.")

    async def permits(self, credentials: Credentials, access: Access) -> bool:
        """Whether the client has this access, and so may get more details. Counts failures as ``check`` does."""
        try:
            await self.check(credentials, access, None)
        except RestMQError:
            return False
        return True

    async def check_any(self, credentials: Credentials, accesses: Sequence[Access], queue: str | None = None) -> None:
        """As ``check``, for a client that needs only one of these. Wrong credentials count as one failure."""
        refusals: list[NotAllowed | NotAuthenticated] = []
        for access in accesses:
            try:
                return await self._check(credentials, access, queue)
            except (NotAllowed, NotAuthenticated) as refusal:
                refusals.append(refusal)
        if any(isinstance(refusal, WrongCredentials) for refusal in refusals):
            self._failures.note_failure(credentials.address)
        # Of several refusals, raise one that the client can act on.
        raise next((refusal for refusal in refusals if isinstance(refusal, NotAuthenticated)), refusals[0])

    async def _check(self, credentials: Credentials, access: Access, queue: str | None) -> None:
        if not access.section:
            return
        section = self.acl.section(access.section)
        if not section.admits(credentials.address):
            raise NotAllowed("your address is not allowed to do this; see hosts_allow in the server's acl.conf.")
        if credentials.token is None and not section.password:
            return
        self._failures.check(credentials.address, credentials.secret)
        if credentials.token is not None:
            refusal = await self._check_token(credentials, credentials.token, access, queue)
        elif credentials.username is None:
            refusal = NotAuthenticated("send a username and password, or a token.")
        else:
            right = await self._is_right(credentials, section)
            refusal = None if right else WrongCredentials("the username or the password is wrong.")
        self._failures.check(credentials.address, credentials.secret)  # again: limits guesses made at the same time
        if refusal is not None:
            raise refusal
        self._failures.note_success(credentials.address, credentials.secret)

    async def _is_right(self, credentials: Credentials, section: Section) -> bool:
        """Whether username and password are the section's, compared in constant time."""
        same_name = hmac.compare_digest((credentials.username or "").encode(), section.username.encode())
        password = credentials.password.encode(errors="surrogateescape")
        return await self._passwords.is_right(section.password, password) and same_name

    async def still_admits(
        self, credentials: Credentials, access: Access, queue: str, record: Authorization | None
    ) -> bool:
        """Whether a client that was admitted earlier would be admitted now. Counts no failures.

        Args:
            record: the token's current record; None if the token no longer exists, or the client sent none.
        """
        section = self.acl.section(access.section)
        if not section.admits(credentials.address):
            return False
        if credentials.token is not None:
            return record is not None and not record.secret and _refusal(record, access, queue) is None
        if not section.password:
            return True
        return credentials.username is not None and await self._is_right(credentials, section)

    async def coverage(self, credentials: Credentials) -> Callable[[str], bool]:
        """A predicate: whether the client may see a queue's name."""
        if credentials.token is None:
            return lambda _: True
        found = await self._core.authorization(credentials.token)
        return lambda queue: found is not None and found.covers(queue)

    async def offers(self, credentials: Credentials, wanted: Mapping[str, Access]) -> dict[str, bool]:
        """Whether a page should offer each of these kinds of access to this client.

        A missing password does not count: the user can enter it later.
        """
        known = None if credentials.token is None else await self._core.authorization(credentials.token)
        return {
            name: self.acl.section(access.section).admits(credentials.address)
            and (credentials.token is None or (known is not None and access.privilege in _privileges(known)))
            for name, access in wanted.items()
        }

    async def _check_token(
        self, credentials: Credentials, token: str, access: Access, queue: str | None
    ) -> NotAllowed | NotAuthenticated | None:
        found = await self._core.authorization(token)
        if found is None or bool(found.secret) != credentials.is_signed:  # who reads a signed request has its token
            return WrongCredentials("the token is unknown; check it, or ask for a new one.")
        refusal = _refusal(found, access, queue)
        return None if refusal is None else NotAllowed(refusal)


def _refusal(found: Authorization, access: Access, queue: str | None) -> str | None:
    """The reason why a token's record does not allow the access; None if it does."""
    if access.privilege not in _privileges(found):
        return f"the token lacks the privilege {access.privilege!r}."
    if queue is not None and not found.covers(queue):
        return "the token is not for this queue."
    if access.all_queues and "*" not in found.queues:
        return "the token is not for all queues; make one with --queue '*'."
    return None


def _privileges(found: Authorization) -> frozenset[str]:
    if found.privileges & {"read", "write"}:
        return found.privileges
    return found.privileges | {"read", "write"}  # records of RestMQ 1 name neither, and allow both


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Username and password of ``Authorization: Basic …`` (RFC 7617), in UTF-8; None for any other header."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        username, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    return (username, password) if colon else None


def cookie_credentials(header: str) -> tuple[str, str] | None:
    """Username and password of the cookie ``auth=user:password`` (RFC 6265, 4.2.1), percent-decoded, or None.

    The last of several such cookies counts. Takes linear time; ``http.cookies`` takes quadratic time.
    """
    value = ""
    for pair in header.split(";"):
        name, _, text = pair.partition("=")
        if name.strip() == "auth":
            value = text.strip()
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    username, colon, password = unquote(value).partition(":")
    return (username, password) if colon else None
