"""Daemons on one Redis ask each other what only each of them knows: who is connected to it, what it has counted.

A question is published, and PUBLISH says how many heard it: the one who asks waits for exactly so many answers, and not
at all where it is alone. One that hangs, or died meanwhile, is waited for as long as ``--peer-timeout`` says and then
missing. Whoever can't hear answers, as Redis is away, gets none at once.

What comes over Redis is checked: here its form, by those who take the answers what is in them.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from twisted.application import service
from twisted.internet import defer
from twisted.logger import Logger

from restmq.core import RedisOperations
from restmq.errors import RestMQError
from restmq.store import keys

log = Logger()

#: For what is asked once, when a process comes: it is not ready before, and nobody waits for it.
JOIN_SECONDS = 5.0
#: Redis cuts off who is 32 MB behind with what it is published.
MESSAGE_BYTES_MAX = 8 << 20
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(slots=True)
class _Asked:
    """A question of ours. ``wanted`` is how many answers there will be; many, until that is known."""

    wanted: float = math.inf
    answers: dict[str, Any] = field(default_factory=dict)
    done: defer.Deferred[None] = field(default_factory=defer.Deferred)

    def expect(self, wanted: float) -> None:
        self.wanted = wanted
        if len(self.answers) >= wanted and not self.done.called:
            self.done.callback(None)

    def take(self, peer: str, answer: Any) -> None:
        self.answers[peer] = answer
        self.expect(self.wanted)


#: Answers a question, now or later; it is given what the question is about.
Give = Callable[[Any], Any]
#: Is given what somebody said, and who it was; ValueError if it is nothing.
Take = Callable[[Any, str], None]


class Peers(service.Service):  # type: ignore[misc]  # untyped
    """This daemon among those on the same Redis.

    Args:
        answer_seconds: how long others are waited for.

    Attributes:
        id: under which the others know this process.
        everybody, group: the channels of all daemons, and of the workers of this server; None where there are none.
        on_joined: called when others can be heard, or can be heard again; ``joined`` fires when it is done first.
        on_leaving: called at the end, while the others can still be told something.
    """

    def __init__(self, core: RedisOperations, reactor: Any, answer_seconds: float, group: str = "") -> None:
        self.id = secrets.token_hex(8)
        db = core.store.settings.db
        self.everybody = keys.peers_channel(db)
        self.group = keys.peers_channel(db, group) if group else None
        self.joined: defer.Deferred[None] = defer.Deferred()
        self.on_joined: Callable[[], Any] = lambda: None
        self.on_leaving: Callable[[], Any] = lambda: None
        self._store = core.store
        self._reactor = reactor
        self._answer_seconds = answer_seconds
        self._subscriber = core.pubsub(self._heard, on_lost=self._lost, on_renewed=self._join)
        self._hears = False
        self._number = 0
        self._asked: dict[int, _Asked] = {}
        self._kinds: dict[str, tuple[Give, Take | None]] = {}

    def startService(self) -> None:
        super().startService()
        subscribed = defer.gatherResults([self._subscriber.subscribe(channel) for channel in self._channels()])
        # It takes the other connections to say something; they may come up later than this one.
        subscribed.addCallback(lambda _: self._store.first_connected.addCallback(lambda _: self._join()))

    def _channels(self) -> list[bytes]:
        return [self.everybody, keys.peer_channel(self.id), *([self.group] if self.group else [])]

    def _join(self) -> None:
        self._hears = True
        called = defer.maybeDeferred(self.on_joined)
        called.addErrback(lambda failure: log.failure("joining the other daemons failed", failure=failure))
        called.addCallback(lambda _: None if self.joined.called else self.joined.callback(None))

    def _lost(self) -> None:
        self._hears = False
        for asked in list(self._asked.values()):
            asked.expect(0)

    async def stopService(self) -> None:
        super().stopService()
        if self._hears:
            await defer.maybeDeferred(self.on_leaving)
        self._lost()
        for channel in self._channels():  # who asks from now on is not to wait for this one
            self._subscriber.unsubscribe(channel)
        self._subscriber.stop()

    def answer(self, kind: str, give: Give, take: Take | None = None) -> None:
        """Has questions of a kind answered.

        Args:
            take: if it is there, these answers, and what the questions are about, are said aloud: the whole group hears
                them, and each of it takes them, in the same order, also who did not ask, and whose word it is.
        """
        self._kinds[kind] = give, take

    async def ask(self, kind: str, about: Any, channel: bytes, least_seconds: float = 0) -> dict[str, Any]:
        """The answers that came in time, by who gave them: of all on a channel but this process. Never fails.

        Args:
            least_seconds: in time is what comes within these, too.
        """
        if not self._hears:
            return {}
        self._number += 1
        asked = self._asked[number := self._number] = _Asked()
        overdue = self._reactor.callLater(max(least_seconds, self._answer_seconds), asked.expect, 0)
        heard = self._publish(channel, {"kind": kind, "ask": True, "about": about, "number": number})
        # Of what is said aloud, the question is heard here, too, in its turn, and counts as an answer.
        aloud = self._kinds[kind][1] is not None
        ourselves = 1 if channel in (self.everybody, self.group) and not aloud else 0
        heard.addCallback(lambda count: asked.expect(count - ourselves))
        await asked.done
        del self._asked[number]
        if overdue.active():
            overdue.cancel()
        return asked.answers

    async def tell(self, kind: str, answer: Any) -> None:
        """Gives the group an answer that nobody asked for; it is heard by now, or Redis is away."""
        if self.group is not None and self._hears:
            said = self._publish(self.group, {"kind": kind, "answer": answer})
            await in_time(said, self._reactor, self._answer_seconds)

    def _publish(self, channel: bytes, message: dict[str, Any]) -> defer.Deferred[int]:
        """How many heard it; 0 if it could not be said."""
        payload = orjson.dumps({**message, "by": self.id})
        if len(payload) > MESSAGE_BYTES_MAX:
            log.warn("what other daemons asked for is too long to be said ({size} bytes).", size=len(payload))
            return defer.succeed(0)
        return self._store.command("PUBLISH", channel, payload).addErrback(_store_is_away)

    def _heard(self, _channel: bytes, payload: bytes) -> None:
        message = _parse(payload)
        kind = message["kind"] if message else ""
        if message is None or kind not in self._kinds:
            return
        by, is_question, (give, take) = message["by"], message.get("ask") is True, self._kinds[kind]
        said = message.get("about" if is_question else "answer")
        if take is not None and said is not None:
            try:
                take(said, by)
            except ValueError as problem:
                log.debug("what another daemon says of {kind} is nothing: {problem}", kind=kind, problem=problem)
        if (by if is_question else message.get("to")) == self.id:
            asked = self._asked.get(message.get("number", 0))
            if asked is not None and (take is not None or not is_question):
                asked.take(by, said)
        elif is_question:
            given = defer.maybeDeferred(give, said)
            given.addCallback(self._give, message, aloud=take is not None)
            given.addErrback(lambda failure: log.failure("answering another daemon failed", failure=failure))

    def _give(self, answer: Any, question: dict[str, Any], aloud: bool) -> None:
        channel = self.group if aloud and self.group is not None else keys.peer_channel(question["by"])
        said = {"kind": question["kind"], "answer": answer, "to": question["by"], "number": question.get("number")}
        self._publish(channel, said)


def _store_is_away(failure: Any) -> int:
    failure.trap(RestMQError)
    return 0


async def in_time(shared: defer.Deferred[Any], reactor: Any, seconds: float) -> None:
    """Waits, but not for longer. What is waited for goes on: a call to Redis must not be cancelled."""
    mine: defer.Deferred[None] = defer.Deferred()
    shared.addCallback(lambda _: None if mine.called else mine.callback(None))
    await mine.addTimeout(seconds, reactor, lambda _failure, _seconds: None)


def _parse(payload: bytes) -> dict[str, Any] | None:
    """A message with who says it; None for what is none."""
    try:
        message = orjson.loads(payload) if len(payload) <= MESSAGE_BYTES_MAX else None
    except orjson.JSONDecodeError:
        return None
    if not isinstance(message, dict) or not isinstance(by := message.get("by"), str) or not _ID.fullmatch(by):
        return None
    return message if isinstance(message.get("kind"), str) and type(message.get("number", 0)) is int else None
