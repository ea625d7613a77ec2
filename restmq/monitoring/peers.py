"""Questions between the daemons on one Redis, for data that only one process has, such as its connected consumers.

1. A question is a message on a channel: of all daemons, of the workers of one server, or of one process. An answer goes
   to the channel of the process that asked, with the question's number.
2. PUBLISH returns the number of processes that received the question. So the asking process knows the number of answers
   to expect. It does not wait if it is alone, and stops waiting once all have answered.
3. The asking process waits for a process that hangs or died until ``--peer-timeout`` is over, and then leaves it out.
   An answer that comes later is dropped.
4. While Redis is away, a process can receive no answers, so ``ask`` returns none, at once. When the subscription is
   lost, all open questions end with the answers that have come.
5. ``ask`` never fails, so statistics never fail a request. The delivery of messages does not depend on this module.
6. Data from other processes is checked: the form of a message here, the contents of an answer by the code that asked.

A question goes through these states: asked (the number of answers is unknown), counted (PUBLISH has answered), done.
Answers may arrive before PUBLISH has answered. So answers are kept from the start, and their number is compared with
the expected number whenever either changes. A maintainer must keep that: if they were compared only when an answer
arrives, ``ask`` could wait although all answers are there.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import msgspec
from twisted.application import service
from twisted.internet import defer
from twisted.logger import Logger

from restmq.core import RedisOperations
from restmq.errors import RestMQError
from restmq.store.base import Channels

log = Logger()

#: Redis disconnects a subscriber that is 32 MB behind.
MESSAGE_BYTES_MAX = 8 << 20
_NOTHING = msgspec.Raw(b"null")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

Form = TypeVar("Form")


class _Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A question (``ask``) or an answer, as JSON on a channel."""

    by: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
    kind: str
    number: int = 0
    ask: bool = False
    about: msgspec.Raw = _NOTHING
    to: str = ""
    answer: msgspec.Raw = _NOTHING


@dataclass(slots=True)
class _Question:
    """A question that this process asked.

    Attributes:
        wanted: the number of answers to wait for; infinite until it is known.
        asked: the number of processes that received it; negative if that is unknown.
    """

    wanted: float = math.inf
    asked: int = -1
    answers: dict[str, msgspec.Raw] = field(default_factory=dict)
    done: defer.Deferred[None] = field(default_factory=defer.Deferred)

    def expect(self, wanted: float) -> None:
        self.wanted = wanted
        if len(self.answers) >= wanted and not self.done.called:
            self.done.callback(None)

    def received_by(self, count: int) -> None:
        self.asked = count
        self.expect(count)

    def add(self, peer: str, answer: msgspec.Raw) -> None:
        self.answers[peer] = answer
        self.expect(self.wanted)


#: Returns the answer to a question, or a Deferred of it. The argument is the question's subject (``about``).
Responder = Callable[[Any], Any]


class Peers(service.Service):  # type: ignore[misc]  # untyped
    """Asks the other daemons on the same Redis, and answers them.

    Args:
        answer_seconds: maximum time to wait for answers.
        group: the server's own name, if it has several workers.

    Attributes:
        id: the identity under which the others know this process.
        everybody, group: the channels of all daemons, and of the workers of this server (None if it has no workers).
    """

    def __init__(self, core: RedisOperations, reactor: Any, answer_seconds: float, group: str) -> None:
        self.id = secrets.token_hex(8)
        self._layout = core.layout
        self.everybody = core.layout.peers_channel()
        self.group = core.layout.peers_channel(group) if group else None
        self._own_channel = core.layout.peer_channel(self.id)
        self._store = core.store
        self._reactor = reactor
        self._answer_seconds = answer_seconds
        self._subscriber = core.pubsub(self._on_message, on_lost=self._lost, on_renewed=self._renewed)
        self._subscribed: set[bytes] = set()
        self._number = 0
        self._questions: dict[int, _Question] = {}
        self._responders: dict[str, tuple[Any, Responder]] = {}

    def startService(self) -> None:
        super().startService()
        for channel in self._channels():
            self._subscriber.subscribe(channel).addCallback(lambda _, channel=channel: self._renewed([channel]))

    def _channels(self) -> list[bytes]:
        return [self.everybody, self._own_channel, *([self.group] if self.group else [])]

    def _renewed(self, channels: Channels) -> None:
        self._subscribed.update(channels)

    def _lost(self, channels: Channels) -> None:
        self._subscribed.difference_update(channels)
        if self._own_channel in channels:
            for question in list(self._questions.values()):
                question.expect(0)

    def stopService(self) -> None:
        super().stopService()
        self._lost(self._channels())
        for channel in self._channels():  # other daemons must not wait for this process from now on
            self._subscriber.unsubscribe(channel)
        self._subscriber.stop()

    def answer(self, kind: str, about: Any, responder: Responder) -> None:
        """Registers the function that answers questions of this kind. ``about`` is the type of their subject."""
        self._responders[kind] = about, responder

    async def ask(
        self, kind: str, about: Any, channel: bytes, form: type[Form], least_seconds: float = 0
    ) -> list[Form]:
        """Asks all other processes on a channel; returns the answers that came in time. Never fails.

        Args:
            about: the question's subject.
            form: the type of an answer. An answer that does not fit is dropped.
            least_seconds: time to wait for answers, if ``answer_seconds`` is less.
        """
        return (await self.ask_and_count(kind, about, channel, form, least_seconds))[0]

    async def ask_and_count(
        self, kind: str, about: Any, channel: bytes, form: type[Form], least_seconds: float = 0
    ) -> tuple[list[Form], int | None]:
        """As ``ask``. Returns also the number of processes that did not answer; None if it is unknown."""
        if self._own_channel not in self._subscribed:
            return [], None
        self._number += 1
        number, question = self._number, _Question()
        self._questions[number] = question
        timeout = self._reactor.callLater(max(least_seconds, self._answer_seconds), question.expect, 0)
        own_answers = int(channel in self._subscribed)
        subject = msgspec.Raw(msgspec.json.encode(about))
        published = self._publish(channel, _Message(by=self.id, kind=kind, ask=True, about=subject, number=number))
        published.addCallback(lambda count: question.received_by(count - own_answers))
        await question.done
        del self._questions[number]
        if timeout.active():
            timeout.cancel()
        answers = [answer for raw in question.answers.values() for answer in _decode(raw, form)]
        return answers, max(0, question.asked - len(answers)) if question.asked >= 0 else None

    async def ask_one(
        self, peer: str, kind: str, about: Any, form: type[Form], least_seconds: float = 0
    ) -> Form | None:
        """Asks one process, which may be this one. Returns None if it does not answer in time."""
        if peer == self.id:
            own: Form | None = await defer.maybeDeferred(self._responders[kind][1], about)
            return own
        answers = await self.ask(kind, about, self._layout.peer_channel(peer), form, least_seconds)
        return answers[0] if answers else None

    def _publish(self, channel: bytes, message: _Message) -> defer.Deferred[int]:
        """Returns the number of processes that received the message; 0 if it could not be published."""
        payload = msgspec.json.encode(message)
        if len(payload) > MESSAGE_BYTES_MAX:
            log.warn("an answer to another daemon is too large and was not sent ({size} bytes).", size=len(payload))
            return defer.succeed(0)
        return self._store.publish(channel, payload).addErrback(_store_is_away)

    def _on_message(self, _channel: bytes, payload: bytes) -> None:
        for message in _decode(payload, _Message) if len(payload) <= MESSAGE_BYTES_MAX else ():
            if message.ask and message.kind in self._responders and message.by != self.id:
                self._respond(message)
            elif message.to == self.id and (question := self._questions.get(message.number)):
                question.add(message.by, message.answer)

    def _respond(self, question: _Message) -> None:
        form, responder = self._responders[question.kind]
        for about in _decode(question.about, form):
            answered = defer.maybeDeferred(responder, about)
            answered.addCallback(self._send_answer, question)
            answered.addErrback(lambda failure: log.failure("answering another daemon failed", failure=failure))

    def _send_answer(self, answer: Any, question: _Message) -> None:
        raw = msgspec.Raw(msgspec.json.encode(answer))
        message = _Message(by=self.id, kind=question.kind, to=question.by, number=question.number, answer=raw)
        self._publish(self._layout.peer_channel(question.by), message)


def _store_is_away(failure: Any) -> int:
    failure.trap(RestMQError)
    return 0


def _decode(payload: bytes | msgspec.Raw, form: Any) -> list[Any]:
    """Returns the value in a list; an empty list if it is not of that type."""
    try:
        return [msgspec.json.decode(payload, type=form)]
    except _UNREADABLE:
        return []
