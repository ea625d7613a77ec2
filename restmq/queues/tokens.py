"""Access tokens: their records in Redis."""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from restmq.queues.base import Operations
from restmq.store.partitions import gather

_TOKENS_A_CALL = 1000
_SIGNING_SECONDS = 2.0


@dataclass(slots=True, frozen=True)
class Authorization:
    """The rights in an access token's record.

    Attributes:
        queues: names or globs (``*``, ``?``, ``[…]``) of queues.
        secret: signs requests in place of the token, which is then no secret and opens nothing by itself; empty if the
            token does not sign.
        name: by which people know the token; empty if it has none.
        created_ms, expires_ms: times in ms since 1970; 0 if unknown, or for a token that does not expire. Redis itself
            deletes an expired record.
    """

    queues: tuple[str, ...]
    privileges: frozenset[str]
    secret: str = ""
    name: str = ""
    created_ms: int = 0
    expires_ms: int = 0

    def covers(self, queue: str) -> bool:
        """Whether one of the names or globs matches the queue."""
        return any(queue == name or fnmatch.fnmatchcase(queue, name) for name in self.queues)


class TokenOperations(Operations):
    """Operations on tokens' records."""

    _signing: tuple[float, bool] = (-math.inf, False)

    async def authorization(self, token: str) -> Authorization | None:
        """The rights of a token, or None if there is no such token or its record is invalid."""
        return _authorization(await self.store.command("GET", self.layout.token(token)))

    async def authorizations_of(self, tokens: Iterable[str]) -> dict[str, Authorization | None]:
        """The rights of many tokens; one call per thousand. Lacks those of nodes of a cluster that do not answer."""
        by_partition: dict[int, list[str]] = {}
        for token in tokens:
            by_partition.setdefault(self.layout.partition_of(self.layout.token(token)), []).append(token)
        found = await gather(self.store, by_partition, lambda partition: self._records_of(by_partition[partition]))
        return {token: rights for known in found.results.values() for token, rights in known.items()}

    async def _records_of(self, tokens: list[str]) -> dict[str, Authorization | None]:
        found: dict[str, Authorization | None] = {}
        for start in range(0, len(tokens), _TOKENS_A_CALL):
            some = tokens[start : start + _TOKENS_A_CALL]
            records = await self.store.command("MGET", *map(self.layout.token, some))
            found.update(zip(some, map(_authorization, records), strict=True))
        return found

    async def authorization_create(
        self,
        token: str,
        queues: Iterable[str],
        privileges: Iterable[str],
        *,
        secret: str = "",
        name: str = "",
        expires_seconds: int = 0,
    ) -> None:
        """Writes a token's record; replaces an older one.

        Args:
            secret: for a token that signs.
            expires_seconds: time after which the record vanishes (default 0: never).
        """
        now_ms = self.store.time_ms()
        fields: dict[str, object] = {"queues": list(queues), "privs": list(privileges), "created": now_ms}
        fields |= {field: text for field, text in (("secret", secret), ("name", name)) if text}
        expiry: list[object] = []
        if expires_seconds:
            fields["expires"] = now_ms + 1000 * expires_seconds
            expiry = ["EX", expires_seconds]
        await self.store.command("SADD" if secret else "SREM", self.layout.signing_tokens, token)
        await self.store.command("SET", self.layout.token(token), json.dumps(fields), *expiry)

    async def authorization_revoke(self, token: str) -> bool:
        """Deletes a token's record. Returns whether there was one."""
        found = bool(await self.store.command("DEL", self.layout.token(token)))
        await self.store.command("SREM", self.layout.signing_tokens, token)
        return found

    async def has_signing_tokens(self) -> bool:
        """Whether any token signs; known for some seconds."""
        read_at, known = self._signing
        now = self.store.clock.seconds()
        if now - read_at > _SIGNING_SECONDS:
            known = bool(await self.store.command("EXISTS", self.layout.signing_tokens))
            self._signing = now, known
        return known

    async def authorizations(self) -> AsyncIterator[tuple[str, Authorization | None]]:
        """All tokens with their rights, None for an invalid record; found by SCAN, a bounded number per call."""
        for server in self.store.servers:
            cursor = b"0"
            while True:
                cursor, found = await server.command("SCAN", cursor, "MATCH", self.layout.token_pattern, "COUNT", 500)
                for key in found:
                    yield self.layout.token_of(key), _authorization(await self.store.command("GET", key))
                if cursor == b"0":
                    break


def _authorization(record: bytes | None) -> Authorization | None:
    """The rights in a record, or None if any part of it is invalid."""
    try:
        fields = json.loads(record) if record else {}
        names, privileges = fields["queues"], fields["privs"]
    except (ValueError, TypeError, KeyError):
        return None
    if not all(isinstance(part, list) and all(isinstance(word, str) for word in part) for part in (names, privileges)):
        return None
    secret = fields.get("secret", "")
    if not isinstance(secret, str):
        return None
    name, created_ms, expires_ms = (fields.get(field) for field in ("name", "created", "expires"))
    return Authorization(
        tuple(names),
        frozenset(privileges),
        secret,
        name if isinstance(name, str) else "",
        created_ms if isinstance(created_ms, int) else 0,
        expires_ms if isinstance(expires_ms, int) else 0,
    )
