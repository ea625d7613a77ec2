"""The server's operations, described once for both clients.

Each function builds a Call. Each client has a method of the same name that runs the Call and returns its result, or
raises an error of ``restmq.errors`` or ``restmq.client.errors``. Queue names, values and keys are checked before
anything is sent (InvalidInput).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from restmq.client.exchange import POLL_SECONDS, ApiRequest, ApiResponse, Call, Message
from restmq.errors import InvalidInput, NotFound
from restmq.model import IDEMPOTENCY_KEY_BYTES_MAX, REASON_BYTES_MAX, check_queue_name, queue_of

_OCTETS = "application/octet-stream"
_NDJSON = "application/x-ndjson"
_FORM = "application/x-www-form-urlencoded"
#: Content types of bodies that the server does not take as they are.
_PARSED = (_FORM, _NDJSON, "multipart/form-data")

Value = str | bytes


def publish(
    queue: str,
    value: Value,
    *,
    delay_seconds: float = 0,
    ttl_seconds: float = 0,
    idempotency_key: str | None = None,
    content_type: str = "",
    headers: Mapping[str, str] | None = None,
    dead: bool = False,
) -> Call[str]:
    """Adds a message to the queue; returns its key. Retries never queue it twice.

    Args:
        value: any bytes, or text, which is sent as UTF-8.
        delay_seconds: time before the message can be delivered (default 0).
        ttl_seconds: time after which the message expires (default 0: never).
        idempotency_key: the server queues one message per key in 24 hours. None (the default) generates a new key.
            With '' the request has no key, and is not retried if it is unknown whether the server ran it.
        content_type: kept with the message.
        headers: kept with the message, if the server keeps headers of these names (its ``--keep-headers``).
        dead: add the message as a dead letter, e.g. one of another server (default False).
    """
    body, kind = _encode(value), content_type or _OCTETS
    if kind.partition(";")[0].strip().lower() in _PARSED:
        raise InvalidInput(f"the content type {kind} can't be kept, because the server would read the value as a form.")
    if not body:  # the server rejects an empty body
        body, kind = b"value=", _FORM
    request = _publish_request(queue, body, kind, delay_seconds, ttl_seconds, idempotency_key, headers or {}, dead)
    return Call(request, _published_key)


def publish_many(
    queue: str,
    values: Sequence[Value],
    *,
    delay_seconds: float = 0,
    ttl_seconds: float = 0,
    idempotency_key: str | None = None,
) -> Call[list[str]]:
    """Adds up to 1000 messages atomically: all of them or none. Returns their keys, in order.

    Args:
        values: texts, or bytes that are valid UTF-8. Publish any other bytes one by one.
    """
    try:
        texts = [value if isinstance(value, str) else value.decode() for value in values]
    except UnicodeDecodeError:
        raise InvalidInput("a value in the batch is not valid UTF-8; publish it on its own.") from None
    body = b"\n".join(_encode(json.dumps(text, ensure_ascii=False)) for text in texts)
    request = _publish_request(queue, body, _NDJSON, delay_seconds, ttl_seconds, idempotency_key, {})
    return Call(request, lambda response: [str(key) for key in response.json()["keys"]])


def take(queue: str, *, wait_seconds: float = 0) -> Call[Message | None]:
    """Takes the next message for good (at-most-once). None if no message came within ``wait_seconds`` (maximum 60).

    Raises Unreachable if the connection was lost before the response came. A message may then be lost.
    """
    return _first_message(take_many(queue, 1, wait_seconds=wait_seconds))


def take_many(queue: str, count: int, *, wait_seconds: float = 0) -> Call[list[Message]]:
    """Takes up to ``count`` (1 to 1000) messages for good, as ``take``. An empty list if there are none."""
    return _receive_call(queue, {"count": count}, wait_seconds, repeatable=False)


def take_first(
    queues: Sequence[str], *, wait_seconds: float = 0, lease_seconds: float | None = None
) -> Call[Message | None]:
    """Takes the next message of the first of up to 32 queues that has one; its ``more`` has ``queue``.

    Args:
        wait_seconds: as for ``take``, for all of the queues.
        lease_seconds: duration of the lease, 1 to 43200, or 0 for the setting of the message's queue. None (the
            default) takes the message for good.
    """
    query: list[tuple[str, str]] = [("queue", check_queue_name(queue)) for queue in queues]
    if wait_seconds:
        query.append(("wait", _number(wait_seconds)))
    if lease_seconds is not None:
        query.append(("lease", _number(lease_seconds) if lease_seconds else ""))
    request = ApiRequest(
        "GET", "/take?" + urlencode(query), wait_seconds=wait_seconds, repeatable=lease_seconds is not None
    )
    return Call(request, lambda response: None if response.check().status == 204 else Message.parse(response.json()))


def lease(queue: str, lease_seconds: float | None = None, *, wait_seconds: float = 0) -> Call[Message | None]:
    """Leases the next message (at-least-once). It returns to the queue unless it is acked before the lease ends.

    Args:
        lease_seconds: duration of the lease, 1 to 43200 (default: the queue's setting).
        wait_seconds: as for ``take``.
    """
    return _first_message(lease_many(queue, 1, lease_seconds, wait_seconds=wait_seconds))


def lease_many(
    queue: str, count: int, lease_seconds: float | None = None, *, wait_seconds: float = 0
) -> Call[list[Message]]:
    """Leases up to ``count`` (1 to 1000) messages, as ``lease``. An empty list if there are none."""
    query = {"count": count, "lease": "" if lease_seconds is None else _number(lease_seconds)}
    return _receive_call(queue, query, wait_seconds, repeatable=True)


def consume(queue: str, lease_seconds: float | None = None, *, count: int = 1) -> Call[list[Message]]:
    """One long poll of a client's ``consume``. It is retried even if the lost response may have contained messages."""
    if lease_seconds is not None:
        return lease_many(queue, count, lease_seconds, wait_seconds=POLL_SECONDS)
    return _receive_call(queue, {"count": count}, POLL_SECONDS, repeatable=True)


def ack(message: Message) -> Call[None]:
    """Acks a leased message, which removes it for good. Raises LeaseGone if its lease has ended."""
    path = _path("m", message.key) + "?" + urlencode({"receipt": message.receipt})
    return Call(ApiRequest("DELETE", path), _no_result)


def extend(message: Message, lease_seconds: float) -> Call[None]:
    """Makes the lease end ``lease_seconds`` from now. Raises LeaseGone if it has already ended."""
    return Call(_lease_request(message, lease_seconds), _no_result)


def ack_many(messages: Sequence[Message]) -> Call[list[bool]]:
    """Acks up to 1000 leased messages of one queue. Returns for each whether its lease was still in force."""
    leases = [{"key": message.key, "receipt": message.receipt} for message in messages]
    return Call(
        _command({"cmd": "ack", "messages": leases}),
        lambda response: [bool(answer["acked"]) for answer in response.json()["messages"]],
    )


def nack(message: Message, *, delay_seconds: float | None = None, reason: str = "") -> Call[None]:
    """Returns a leased message to its place in the queue. Raises LeaseGone if its lease has ended.

    Args:
        delay_seconds: time until the message comes back (default: the queue's setting ``retry_delay``, or at once).
        reason: why the delivery failed, which is shown with the message; only its first 1024 bytes are sent.
    """
    more = {} if delay_seconds is None else {"delay": _number(delay_seconds)}
    if reason:
        more["reason"] = reason.encode(errors="replace")[:REASON_BYTES_MAX].decode(errors="ignore")
    return Call(_lease_request(message, 0, **more), _no_result)


def find(key: str) -> Call[Message | None]:
    """Peeks at the message with this key, whatever its state. None if there is no such message."""
    queue_of(key)

    def read(response: ApiResponse) -> Message | None:
        try:
            return Message.parse(response.json())
        except NotFound:
            return None

    return Call(ApiRequest("GET", _path("m", key)), read)


def peek(queue: str, place: str, *, first: int = 0, count: int = 10) -> Call[list[Message]]:
    """Peeks at up to ``count`` (1 to 100) messages, skipping ``first``. A long value is cut: ``more`` has ``cut``.

    Args:
        place: ``next``, ``newest``, ``leased``, ``delayed`` or ``dead``.
    """
    path = _path("j", queue) + "?" + urlencode({"list": place, "first": first, "count": count})
    return Call(
        ApiRequest("GET", path), lambda response: [Message.parse(fields) for fields in response.json()["messages"]]
    )


def delete(queue: str, key: str) -> Call[bool]:
    """Deletes a message, whatever its state; returns whether it existed."""
    request = _command({"cmd": "del", "queue": check_queue_name(queue), "key": key})
    return Call(request, lambda response: bool(response.json()["deleted"]))


def queues() -> Call[list[str]]:
    """The names of all queues that the client's credentials may see."""
    return Call(ApiRequest("GET", "/q/"), lambda response: [str(name) for name in response.json()["queues"]])


def stats(queue: str) -> Call[dict[str, Any]]:
    """A queue's counters: ``ready``, ``leased``, ``delayed``, ``dead``, ``consumers``, ``totals`` and more."""
    return Call(ApiRequest("GET", _path("stats", queue)), _document)


def overview() -> Call[dict[str, dict[str, Any]]]:
    """All visible queues by name, each with ``len``, ``status`` (1 started, 0 paused) and ``policy``."""
    return Call(ApiRequest("GET", "/stats/"), lambda response: dict(response.json()["queues"]))


def settings(queue: str) -> Call[dict[str, Any]]:
    """The queue's policy as ``value``, and every setting that differs from its default."""
    return Call(ApiRequest("GET", _path("p", queue)), _document)


def configure(queue: str, *, policy: str | None = None, **settings: int | str) -> Call[None]:
    """Sets the policy (``broadcast`` or ``roundrobin``) and settings such as ``lease`` or ``max_deliveries``.

    A setting of 0, or a ``dead_letter`` of '', restores the default.
    """
    form = {**({} if policy is None else {"policy": policy}), **settings}
    return Call(_form("POST", _path("p", queue), form), _no_result)


def pause(queue: str) -> Call[None]:
    """Stops delivery to connected consumers until ``start``. Messages queue up and can still be taken or leased."""
    return Call(_form("POST", _path("control", queue), {"status": "stop"}), _no_result)


def start(queue: str) -> Call[None]:
    """Resumes delivery to connected consumers."""
    return Call(_form("POST", _path("control", queue), {"status": "start"}), _no_result)


def purge(queue: str, *, remove: bool = False) -> Call[bool]:
    """Drops all messages of the queue and disconnects its consumers. Returns whether there was anything to drop.

    Args:
        remove: whether to remove the queue itself too, with its settings, policy, status and counters.
    """
    path = _path("q", queue) + ("?remove=true" if remove else "")
    return Call(ApiRequest("DELETE", path), lambda response: bool(response.json()["status"]))


def dead(queue: str, *, first: int = 0, count: int = 100) -> Call[tuple[int, list[Message]]]:
    """The number of dead letters in the queue, and up to ``count`` (1 to 1000) of them, skipping ``first``."""
    path = _path("d", queue) + "?" + urlencode({"first": first, "count": count})

    def read(response: ApiResponse) -> tuple[int, list[Message]]:
        document = response.json()
        return int(document["dead"]), [Message.parse(fields) for fields in document["messages"]]

    return Call(ApiRequest("GET", path), read)


def redrive(queue: str, key: str = "", *, to: str = "") -> Call[int]:
    """Moves all dead letters, or the one with this key, back to the end of the queue. Returns the number moved.

    Raises NotFound if there is no dead letter with this key.

    Args:
        to: another queue to move them to.
    """
    form = {name: text for name, text in (("key", key), ("to", to)) if text}
    return Call(_form("POST", _path("d", queue), form), lambda response: int(response.json()["redriven"]))


def drop_dead(queue: str, key: str = "") -> Call[int]:
    """Drops all dead letters, or the one with this key, for good. Returns the number dropped; raises as ``redrive``."""
    path = _path("d", queue) + ("?" + urlencode({"key": key}) if key else "")
    return Call(ApiRequest("DELETE", path), lambda response: int(response.json()["dropped"]))


# Building requests and reading responses


def _path(route: str, name: str) -> str:
    if route != "m":
        check_queue_name(name)
    return f"/{route}/{quote(name, safe='')}"


def _encode(value: Value) -> bytes:
    try:
        return value.encode() if isinstance(value, str) else bytes(value)
    except UnicodeEncodeError:
        raise InvalidInput("the text has a lone surrogate, which UTF-8 can't encode; send bytes instead.") from None


def _number(number: float) -> str:
    """A decimal number without an exponent, as the server requires."""
    return f"{number:.3f}".rstrip("0").rstrip(".")


def _form(method: str, path: str, fields: Mapping[str, object]) -> ApiRequest:
    return ApiRequest(method, path, body=urlencode(fields).encode("ascii"), content_type=_FORM)


def _command(fields: Mapping[str, object]) -> ApiRequest:
    return ApiRequest("POST", "/queue", body=_encode(json.dumps(fields)), content_type="application/json")


def _publish_request(
    queue: str,
    body: bytes,
    kind: str,
    delay_seconds: float,
    ttl_seconds: float,
    idempotency_key: str | None,
    kept: Mapping[str, str],
    dead: bool = False,
) -> ApiRequest:
    if idempotency_key is None:
        idempotency_key = secrets.token_urlsafe(12)
    if not (idempotency_key.isascii() and idempotency_key.isprintable()) or idempotency_key.strip() != idempotency_key:
        raise InvalidInput(
            "the idempotency key is invalid; use printable ASCII characters, with no space at either end."
        )
    if len(idempotency_key) > IDEMPOTENCY_KEY_BYTES_MAX:
        raise InvalidInput(f"the idempotency key is too long; the maximum is {IDEMPOTENCY_KEY_BYTES_MAX} characters.")
    query = {name: _number(seconds) for name, seconds in (("delay", delay_seconds), ("ttl", ttl_seconds)) if seconds}
    if dead:
        query["dead"] = "true"
    path = _path("q", queue) + ("?" + urlencode(query) if query else "")
    headers = dict(kept)
    if any(not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) for name in kept) or any(
        ord(character) < 32 or ord(character) == 127 for value in kept.values() for character in value
    ):
        raise InvalidInput("a header is invalid; use names of letters, digits and '-', and no control characters.")
    if idempotency_key:
        headers["Idempotency-Key"] = idempotency_key
    return ApiRequest("POST", path, body=body, content_type=kind, headers=headers, repeatable=bool(idempotency_key))


def _receive_call(queue: str, query: dict[str, Any], wait_seconds: float, repeatable: bool) -> Call[list[Message]]:
    if wait_seconds:
        query["wait"] = _number(wait_seconds)
    path = _path("q", queue) + "?" + urlencode(query)
    return Call(ApiRequest("GET", path, wait_seconds=wait_seconds, repeatable=repeatable), _messages)


def _lease_request(message: Message, lease_seconds: float, **more: str) -> ApiRequest:
    form = {"receipt": message.receipt, "lease": _number(lease_seconds), **more}
    return _form("POST", _path("m", message.key), form)


def _first_message(call: Call[list[Message]]) -> Call[Message | None]:
    return Call(call.request, lambda response: next(iter(call.read(response)), None))


def _messages(response: ApiResponse) -> list[Message]:
    return [] if response.check().status == 204 else [Message.parse(fields) for fields in response.json()]


def _published_key(response: ApiResponse) -> str:
    key = response.check().body.decode().strip("\r\n")
    if not key.rpartition(":")[2].isdigit():
        raise ValueError(key[:40])
    return key


def _document(response: ApiResponse) -> dict[str, Any]:
    return dict(response.json())


def _no_result(response: ApiResponse) -> None:
    response.check()
