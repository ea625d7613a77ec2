"""All that can be asked of a server, once for every kind of client.

Each function makes a Call; a client has a method of the same name that carries it out and returns what it means, or
raises an error of ``restmq.errors`` or ``restmq.client.errors``. Queues' names, values and keys are checked before
anything is sent.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

from restmq.client.exchange import Answer, Call, Message, Request
from restmq.errors import InvalidInput, NotFound
from restmq.model import IDEMPOTENCY_KEY_BYTES_MAX, check_queue_name, queue_of

OCTETS = "application/octet-stream"
NDJSON = "application/x-ndjson"
FORM = "application/x-www-form-urlencoded"

Value = str | bytes


def publish(
    queue: str, value: Value, *, delay_seconds: float = 0, ttl_seconds: float = 0, idempotency_key: str | None = None
) -> Call[str]:
    """Puts a message in; returns its key. It is queued once, however often it had to be sent.

    Args:
        value: any bytes, or text, which goes in UTF-8.
        delay_seconds: it comes up only after so long.
        ttl_seconds: it vanishes after so long; 0 for never.
        idempotency_key: the server queues what comes with one key in 24 hours once, and remembers the key for that
            long. None for a key made up for this message; '' for none, and then it is not sent again where its fate is
            unknown.
    """
    body, kind = _bytes(value), OCTETS
    if not body:  # an empty body would be no message
        body, kind = b"value=", FORM
    return Call(_adding(queue, body, kind, delay_seconds, ttl_seconds, idempotency_key), _key)


def publish_many(
    queue: str,
    values: Sequence[Value],
    *,
    delay_seconds: float = 0,
    ttl_seconds: float = 0,
    idempotency_key: str | None = None,
) -> Call[list[str]]:
    """Puts up to 1000 messages in, all of them or none, in one atomic step; returns their keys, in order.

    Args:
        values: texts. Bytes that are no UTF-8 can't go this way: InvalidInput says so; publish them one by one.
    """
    try:
        texts = [value if isinstance(value, str) else value.decode() for value in values]
    except UnicodeDecodeError:
        raise InvalidInput("one of the values is no UTF-8, which a batch must be; publish it on its own.") from None
    body = b"\n".join(_bytes(json.dumps(text, ensure_ascii=False)) for text in texts)
    request = _adding(queue, body, NDJSON, delay_seconds, ttl_seconds, idempotency_key)
    return Call(request, lambda answer: [str(key) for key in answer.json()["keys"]])


def take(queue: str, *, wait_seconds: float = 0) -> Call[Message | None]:
    """Takes the next message for good (at-most-once); None if there is none, or none came in ``wait_seconds`` (to 60).

    Raises Unreachable where the connection broke before the answer: a message may have been lost with it.
    """
    return _first(take_many(queue, 1, wait_seconds=wait_seconds))


def take_many(queue: str, count: int, *, wait_seconds: float = 0) -> Call[list[Message]]:
    """Takes up to ``count`` (1 to 1000) messages for good, as ``take``; an empty list if there is none."""
    return _receiving(queue, {"count": count}, wait_seconds, repeatable=False)


def lease(queue: str, lease_seconds: float | None = None, *, wait_seconds: float = 0) -> Call[Message | None]:
    """Leases the next message (at-least-once): it is hidden for so long, and comes back unless it is acked by then.

    Args:
        lease_seconds: 1 to 43200; None for the queue's own setting.
        wait_seconds: as for ``take``.
    """
    return _first(lease_many(queue, 1, lease_seconds, wait_seconds=wait_seconds))


def lease_many(
    queue: str, count: int, lease_seconds: float | None = None, *, wait_seconds: float = 0
) -> Call[list[Message]]:
    """Leases up to ``count`` (1 to 1000) messages, as ``lease``; an empty list if there is none."""
    asked = {"count": count, "lease": "" if lease_seconds is None else _number(lease_seconds)}
    return _receiving(queue, asked, wait_seconds, repeatable=True)


def ack(message: Message) -> Call[None]:
    """The leased message is done with, and leaves for good. Raises LeaseGone if its lease is over."""
    path = _path("m", message.key) + "?" + urlencode({"receipt": message.receipt})
    return Call(Request("DELETE", path), _nothing)


def extend(message: Message, lease_seconds: float) -> Call[None]:
    """The lease lasts so long from now on. Raises LeaseGone if it is over already."""
    return Call(_leased(message, lease_seconds), _nothing)


def nack(message: Message) -> Call[None]:
    """Gives the leased message back, to the front of its queue, at once. Raises LeaseGone if its lease is over."""
    return Call(_leased(message, 0), _nothing)


def find(key: str) -> Call[Message | None]:
    """Looks at a message, wherever it is, without touching it; None if there is none of this key."""
    queue_of(key)

    def read(answer: Answer) -> Message | None:
        try:
            return Message.parse(answer.json())
        except NotFound:
            return None

    return Call(Request("GET", _path("m", key)), read)


def delete(queue: str, key: str) -> Call[bool]:
    """Deletes a message, wherever it stands in the queue; returns whether it was there."""
    body = _bytes(json.dumps({"cmd": "del", "queue": check_queue_name(queue), "key": key}))
    request = Request("POST", "/queue", body, "application/json")
    return Call(request, lambda answer: bool(answer.json()["deleted"]))


def queues() -> Call[list[str]]:
    """The names of all queues that one may know of."""
    return Call(Request("GET", "/q/"), lambda answer: [str(name) for name in answer.json()["queues"]])


def stats(queue: str) -> Call[dict[str, Any]]:
    """A queue in numbers: ``ready``, ``leased``, ``delayed``, ``dead``, ``consumers``, ``totals`` and more."""
    return Call(Request("GET", _path("stats", queue)), _document)


def overview() -> Call[dict[str, dict[str, Any]]]:
    """All queues that one may know of, by name, each with ``len``, ``status`` (1 started, 0 paused) and ``policy``."""
    return Call(Request("GET", "/stats/"), lambda answer: dict(answer.json()["queues"]))


def settings(queue: str) -> Call[dict[str, Any]]:
    """The queue's policy as ``value``, and those of its settings that were set."""
    return Call(Request("GET", _path("p", queue)), _document)


def configure(queue: str, *, policy: str | None = None, **settings: int | str) -> Call[None]:
    """Sets the policy (``broadcast`` or ``roundrobin``), and settings such as ``lease`` or ``max_deliveries``.

    A setting of 0, or a ``dead_letter`` of '', is the default again.
    """
    form = {**({} if policy is None else {"policy": policy}), **settings}
    return Call(_form("POST", _path("p", queue), form), _nothing)


def pause(queue: str) -> Call[None]:
    """Connected consumers get nothing more until ``start``; messages pile up, and can still be taken."""
    return Call(_form("POST", _path("control", queue), {"status": "stop"}), _nothing)


def start(queue: str) -> Call[None]:
    """Connected consumers get messages again."""
    return Call(_form("POST", _path("control", queue), {"status": "start"}), _nothing)


def purge(queue: str) -> Call[bool]:
    """Drops all messages of the queue, and closes its connected consumers; returns whether there were messages."""
    return Call(Request("DELETE", _path("q", queue)), lambda answer: bool(answer.json()["status"]))


def dead(queue: str, *, first: int = 0, count: int = 100) -> Call[tuple[int, list[Message]]]:
    """How many dead letters the queue has, and up to ``count`` (1 to 1000) of them after the ``first`` ones."""
    path = _path("d", queue) + "?" + urlencode({"first": first, "count": count})

    def read(answer: Answer) -> tuple[int, list[Message]]:
        document = answer.json()
        return int(document["dead"]), [Message.parse(fields) for fields in document["messages"]]

    return Call(Request("GET", path), read)


def redrive(queue: str, key: str = "") -> Call[int]:
    """Moves dead letters back to the end of the queue, all, or the one of this key; returns how many.

    Raises NotFound if there is none of this key.
    """
    return Call(
        _form("POST", _path("d", queue), {"key": key} if key else {}), lambda answer: int(answer.json()["redriven"])
    )


def drop_dead(queue: str, key: str = "") -> Call[int]:
    """Drops dead letters for good, as ``redrive``; returns how many."""
    path = _path("d", queue) + ("?" + urlencode({"key": key}) if key else "")
    return Call(Request("DELETE", path), lambda answer: int(answer.json()["dropped"]))


# How requests are made and answers read


def _path(route: str, name: str) -> str:
    if route != "m":
        check_queue_name(name)
    return f"/{route}/{quote(name, safe='')}"


def _bytes(value: Value) -> bytes:
    try:
        return value.encode() if isinstance(value, str) else bytes(value)
    except UnicodeEncodeError:
        raise InvalidInput("the text has half of a surrogate pair, which UTF-8 has no form for.") from None


def _number(number: float) -> str:
    """As the server takes it: digits and a point."""
    return f"{number:.3f}".rstrip("0").rstrip(".")


def _form(method: str, path: str, fields: Mapping[str, object]) -> Request:
    return Request(method, path, urlencode(fields).encode("ascii"), FORM)


def _adding(
    queue: str, body: bytes, kind: str, delay_seconds: float, ttl_seconds: float, idempotency_key: str | None
) -> Request:
    if idempotency_key is None:
        idempotency_key = secrets.token_urlsafe(12)
    if not (idempotency_key.isascii() and idempotency_key.isprintable()) or idempotency_key.strip() != idempotency_key:
        raise InvalidInput("an idempotency key is of printable ASCII characters.")
    if len(idempotency_key) > IDEMPOTENCY_KEY_BYTES_MAX:
        raise InvalidInput(f"an idempotency key has up to {IDEMPOTENCY_KEY_BYTES_MAX} characters.")
    asked = {name: _number(said) for name, said in (("delay", delay_seconds), ("ttl", ttl_seconds)) if said}
    path = _path("q", queue) + ("?" + urlencode(asked) if asked else "")
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    return Request("POST", path, body, kind, headers, repeatable=bool(idempotency_key))


def _receiving(queue: str, asked: dict[str, Any], wait_seconds: float, repeatable: bool) -> Call[list[Message]]:
    if wait_seconds:
        asked["wait"] = _number(wait_seconds)
    path = _path("q", queue) + "?" + urlencode(asked)
    return Call(Request("GET", path, wait_seconds=wait_seconds, repeatable=repeatable), _messages)


def _leased(message: Message, lease_seconds: float) -> Request:
    form = {"receipt": message.receipt, "lease": _number(lease_seconds)}
    return _form("POST", _path("m", message.key), form)


def _first(call: Call[list[Message]]) -> Call[Message | None]:
    return Call(call.request, lambda answer: next(iter(call.read(answer)), None))


def repeatable(call: Call[list[Message]]) -> Call[list[Message]]:
    """The same call, sent again also where its fate is unknown."""
    return replace(call, request=replace(call.request, repeatable=True))


def _messages(answer: Answer) -> list[Message]:
    return [] if answer.check().status == 204 else [Message.parse(fields) for fields in answer.json()]


def _key(answer: Answer) -> str:
    key = answer.check().body.decode().strip("\r\n")
    if not key.rpartition(":")[2].isdigit():
        raise ValueError(key[:40])
    return key


def _document(answer: Answer) -> dict[str, Any]:
    return dict(answer.json())


def _nothing(answer: Answer) -> None:
    answer.check()
