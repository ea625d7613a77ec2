"""The server's operations, described once for both clients.

Each function builds a Call. Each client has a method of the same name that runs the Call and returns its result, or
raises an error of ``restmq.errors`` or ``restmq.client.errors``. Queue names, values and keys are checked before
anything is sent (InvalidInput).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from restmq.client.exchange import POLL_SECONDS, ApiRequest, ApiResponse, Call, Message
from restmq.client.requests import (
    FORM,
    Value,
    checked,
    command_request,
    decimal,
    document_of,
    encoded,
    first_message,
    form_request,
    lease_request,
    no_result,
    path_of,
    publish_request,
    published_key,
    receive_call,
    several,
)
from restmq.errors import InvalidInput, NotFound
from restmq.model import REASON_BYTES_MAX, check_queue_name, queue_of

_OCTETS = "application/octet-stream"
_NDJSON = "application/x-ndjson"
#: Content types of bodies that the server does not take as they are.
_PARSED = (FORM, _NDJSON, "multipart/form-data")


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
    body, kind = encoded(value), content_type or _OCTETS
    if kind.partition(";")[0].strip().lower() in _PARSED:
        raise InvalidInput(f"the content type {kind} can't be kept, because the server would read the value as a form.")
    if not body:  # the server rejects an empty body
        body, kind = b"value=", FORM
    request = publish_request(queue, body, kind, delay_seconds, ttl_seconds, idempotency_key, headers or {}, dead)
    return Call(request, published_key)


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
        texts = [value if isinstance(value, str) else encoded(value).decode() for value in several("values", values)]
    except UnicodeDecodeError:
        raise InvalidInput("a value in the batch is not valid UTF-8; publish it on its own.") from None
    body = b"\n".join(encoded(json.dumps(text, ensure_ascii=False)) for text in texts)
    request = publish_request(queue, body, _NDJSON, delay_seconds, ttl_seconds, idempotency_key, {})
    return Call(request, lambda response: [str(key) for key in response.json()["keys"]])


def take(queue: str, *, wait_seconds: float = 0) -> Call[Message | None]:
    """Takes the next message for good (at-most-once). None if no message came within ``wait_seconds`` (maximum 60).

    Raises Unreachable if the connection was lost before the response came. A message may then be lost.
    """
    return first_message(take_many(queue, 1, wait_seconds=wait_seconds))


def take_many(queue: str, count: int, *, wait_seconds: float = 0) -> Call[list[Message]]:
    """Takes up to ``count`` (1 to 1000) messages for good, as ``take``. An empty list if there are none."""
    return receive_call(queue, {"count": count}, wait_seconds, repeatable=False)


def take_first(
    queues: Sequence[str], *, wait_seconds: float = 0, lease_seconds: float | None = None
) -> Call[Message | None]:
    """Takes the next message of the first of up to 32 queues that has one; its ``more`` has ``queue``.

    Args:
        wait_seconds: as for ``take``, for all of the queues.
        lease_seconds: duration of the lease, 1 to 43200, or 0 for the setting of the message's queue. None (the
            default) takes the message for good.
    """
    query: list[tuple[str, str]] = [("queue", check_queue_name(queue)) for queue in several("names", queues)]
    if wait_seconds:
        query.append(("wait", decimal(wait_seconds)))
    if lease_seconds is not None:
        query.append(("lease", decimal(lease_seconds) if lease_seconds else ""))
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
    return first_message(lease_many(queue, 1, lease_seconds, wait_seconds=wait_seconds))


def lease_many(
    queue: str, count: int, lease_seconds: float | None = None, *, wait_seconds: float = 0
) -> Call[list[Message]]:
    """Leases up to ``count`` (1 to 1000) messages, as ``lease``. An empty list if there are none."""
    query = {"count": count, "lease": "" if lease_seconds is None else decimal(lease_seconds)}
    return receive_call(queue, query, wait_seconds, repeatable=True)


def consume(queue: str | Sequence[str], lease_seconds: float | None = None, *, count: int = 1) -> Call[list[Message]]:
    """One long poll of a client's ``consume``. It is retried even if the lost response may have contained messages."""
    if not isinstance(queue, str):
        first = take_first(queue, wait_seconds=POLL_SECONDS, lease_seconds=lease_seconds)
        request = replace(first.request, repeatable=True)
        return Call(request, lambda response: [message for message in [first.read(response)] if message is not None])
    if lease_seconds is not None:
        return lease_many(queue, count, lease_seconds, wait_seconds=POLL_SECONDS)
    return receive_call(queue, {"count": count}, POLL_SECONDS, repeatable=True)


def ack(message: Message) -> Call[None]:
    """Acks a leased message, which removes it for good. Raises LeaseGone if its lease has ended."""
    path = path_of("m", checked(message).key, {"receipt": message.receipt})
    return Call(ApiRequest("DELETE", path), no_result)


def extend(message: Message, lease_seconds: float) -> Call[None]:
    """Makes the lease end ``lease_seconds`` from now. Raises LeaseGone if it has already ended."""
    return Call(lease_request(message, lease_seconds), no_result)


def ack_many(messages: Sequence[Message]) -> Call[list[bool]]:
    """Acks up to 1000 leased messages of one queue. Returns for each whether its lease was still in force."""
    leases = [{"key": message.key, "receipt": checked(message).receipt} for message in messages]
    return Call(
        command_request({"cmd": "ack", "messages": leases}),
        lambda response: [bool(answer["acked"]) for answer in response.json()["messages"]],
    )


def nack(message: Message, *, delay_seconds: float | None = None, reason: str = "") -> Call[None]:
    """Returns a leased message to its place in the queue. Raises LeaseGone if its lease has ended.

    Args:
        delay_seconds: time until the message comes back (default: the queue's setting ``retry_delay``, or at once).
        reason: why the delivery failed, which is shown with the message; only its first 1024 bytes are sent.
    """
    more = {} if delay_seconds is None else {"delay": decimal(delay_seconds)}
    if reason:
        more["reason"] = reason.encode(errors="replace")[:REASON_BYTES_MAX].decode(errors="ignore")
    return Call(lease_request(message, 0, **more), no_result)


def find(key: str) -> Call[Message | None]:
    """Peeks at the message with this key, whatever its state. None if there is no such message."""
    queue_of(key)

    def read(response: ApiResponse) -> Message | None:
        try:
            return Message.parse(response.json())
        except NotFound:
            return None

    return Call(ApiRequest("GET", path_of("m", key)), read)


def peek(queue: str, place: str, *, first: int = 0, count: int = 10) -> Call[list[Message]]:
    """Peeks at up to ``count`` (1 to 100) messages, skipping ``first``. A long value is cut: ``more`` has ``cut``.

    Args:
        place: ``next``, ``newest``, ``leased``, ``delayed`` or ``dead``.
    """
    path = path_of("j", queue, {"list": place, "first": first, "count": count})
    return Call(
        ApiRequest("GET", path), lambda response: [Message.parse(fields) for fields in response.json()["messages"]]
    )


def delete(queue: str, key: str) -> Call[bool]:
    """Deletes a message, whatever its state; returns whether it existed."""
    request = command_request({"cmd": "del", "queue": check_queue_name(queue), "key": key})
    return Call(request, lambda response: bool(response.json()["deleted"]))


def queues() -> Call[list[str]]:
    """The names of all queues that the client's credentials may see."""
    return Call(ApiRequest("GET", "/q/"), lambda response: [str(name) for name in response.json()["queues"]])


def stats(queue: str) -> Call[dict[str, Any]]:
    """A queue's counters: ``ready``, ``leased``, ``delayed``, ``dead``, ``consumers``, ``totals`` and more."""
    return Call(ApiRequest("GET", path_of("stats", queue)), document_of)


def overview() -> Call[dict[str, dict[str, Any]]]:
    """All visible queues by name, each with ``len``, ``status`` (1 started, 0 paused) and ``policy``."""
    return Call(ApiRequest("GET", "/stats/"), lambda response: dict(response.json()["queues"]))


def stats_of_all() -> Call[list[dict[str, Any]]]:
    """The counters of all visible queues, by name. Each has the fields of ``stats``; its ``totals`` are in and out."""

    def read(response: ApiResponse) -> list[dict[str, Any]]:
        rows = response.json()["queues"]
        return [{"queue": row.pop("name"), **row} for _, row in sorted(rows.items())]

    return Call(ApiRequest("GET", "/stats/?counts=true"), read)


def ready() -> Call[dict[str, Any]]:
    """Whether the server and its store take writes. Raises Busy, with the server's reason, if they do not."""
    return Call(ApiRequest("GET", "/readyz"), document_of)


def servers() -> Call[dict[str, Any]]:
    """All ``servers`` of RestMQ on the same Redis, how many are ``missing``, and the servers of ``redis``."""
    return Call(ApiRequest("GET", "/servers"), document_of)


def settings(queue: str) -> Call[dict[str, Any]]:
    """The queue's policy as ``value``, and every setting that differs from its default."""
    return Call(ApiRequest("GET", path_of("p", queue)), document_of)


def configure(queue: str, *, policy: str | None = None, **settings: int | str) -> Call[None]:
    """Sets the policy (``broadcast`` or ``roundrobin``) and settings such as ``lease`` or ``max_deliveries``.

    A setting of 0, or a ``dead_letter`` of '', restores the default.
    """
    form = {**({} if policy is None else {"policy": policy}), **settings}
    return Call(form_request("POST", path_of("p", queue), form), no_result)


def pause(queue: str) -> Call[None]:
    """Stops delivery to connected consumers until ``resume``. Messages queue up and can still be taken or leased."""
    return Call(form_request("POST", path_of("control", queue), {"status": "stop"}), no_result)


def resume(queue: str) -> Call[None]:
    """Resumes delivery to connected consumers."""
    return Call(form_request("POST", path_of("control", queue), {"status": "start"}), no_result)


def purge(queue: str, *, remove: bool = False) -> Call[bool]:
    """Drops all messages of the queue and disconnects its consumers. Returns whether there was anything to drop.

    Args:
        remove: whether to remove the queue itself too, with its settings, policy, status and counters.
    """
    path = path_of("q", queue, {"remove": "true"} if remove else None)
    return Call(ApiRequest("DELETE", path), lambda response: bool(response.json()["status"]))


def dead(queue: str, *, first: int = 0, count: int = 100) -> Call[tuple[int, list[Message]]]:
    """The number of dead letters in the queue, and up to ``count`` (1 to 1000) of them, skipping ``first``."""
    path = path_of("d", queue, {"first": first, "count": count})

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
    return Call(form_request("POST", path_of("d", queue), form), lambda response: int(response.json()["redriven"]))


def drop_dead(queue: str, key: str = "") -> Call[int]:
    """Drops all dead letters, or the one with this key, for good. Returns the number dropped; raises as ``redrive``."""
    path = path_of("d", queue, {"key": key} if key else None)
    return Call(ApiRequest("DELETE", path), lambda response: int(response.json()["dropped"]))
