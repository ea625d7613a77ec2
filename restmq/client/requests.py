"""How calls are written as requests, and how their responses are read."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from restmq.client.exchange import ApiRequest, ApiResponse, Call, Message
from restmq.errors import InvalidInput
from restmq.model import IDEMPOTENCY_KEY_BYTES_MAX, check_queue_name

FORM = "application/x-www-form-urlencoded"

Value = str | bytes


def path_of(route: str, name: str, query: Mapping[str, object] | None = None) -> str:
    """The path of a queue, or of a message (route ``m``), and the query."""
    if route != "m":
        check_queue_name(name)
    return f"/{route}/{quote(name, safe='')}" + ("?" + urlencode(query) if query else "")


def encoded(value: Value) -> bytes:
    if not isinstance(value, str | bytes | bytearray | memoryview):  # bytes(5) would be five NUL bytes
        raise TypeError(f"a value is str or bytes, not {type(value).__name__}; pass str(value) or json.dumps(value).")
    try:
        return value.encode() if isinstance(value, str) else bytes(value)
    except UnicodeEncodeError:
        raise InvalidInput("the text has a lone surrogate, which UTF-8 can't encode; send bytes instead.") from None


def decimal(number: float) -> str:
    """A decimal number without an exponent, as the server requires."""
    if not isinstance(number, int | float) or isinstance(number, bool):
        raise TypeError(f"a time is a number of seconds, not {number!r}.")
    return f"{number:.3f}".rstrip("0").rstrip(".")


def several(what: str, items: Sequence[Any]) -> Sequence[Any]:
    """The items. Raises TypeError for a str, whose items would be its characters."""
    if isinstance(items, str | bytes):
        raise TypeError(f"pass a list of {what}, not one {type(items).__name__}: [{items[:20]!r}].")
    return items


def checked(message: Message) -> Message:
    """The message. Raises TypeError for anything else, and InvalidInput for a message that is not leased."""
    if not isinstance(message, Message):
        raise TypeError(f"pass the Message that lease() returned, not {type(message).__name__}.")
    if not message.receipt:
        raise InvalidInput(f"{message.key} was not leased, so it has no receipt; use lease() in place of take().")
    return message


def form_request(method: str, path: str, fields: Mapping[str, object]) -> ApiRequest:
    return ApiRequest(method, path, body=urlencode(fields).encode("ascii"), content_type=FORM)


def command_request(fields: Mapping[str, object]) -> ApiRequest:
    return ApiRequest("POST", "/queue", body=encoded(json.dumps(fields)), content_type="application/json")


def publish_request(
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
    query = {name: decimal(seconds) for name, seconds in (("delay", delay_seconds), ("ttl", ttl_seconds)) if seconds}
    if dead:
        query["dead"] = "true"
    path = path_of("q", queue, query)
    headers = dict(kept)
    if any(not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) for name in kept) or any(
        ord(character) < 32 or ord(character) == 127 for value in kept.values() for character in value
    ):
        raise InvalidInput("a header is invalid; use names of letters, digits and '-', and no control characters.")
    if idempotency_key:
        headers["Idempotency-Key"] = idempotency_key
    return ApiRequest("POST", path, body=body, content_type=kind, headers=headers, repeatable=bool(idempotency_key))


def receive_call(queue: str, query: dict[str, Any], wait_seconds: float, repeatable: bool) -> Call[list[Message]]:
    if wait_seconds:
        query["wait"] = decimal(wait_seconds)
    path = path_of("q", queue, query)
    return Call(ApiRequest("GET", path, wait_seconds=wait_seconds, repeatable=repeatable), received_messages)


def lease_request(message: Message, lease_seconds: float, **more: str) -> ApiRequest:
    form = {"receipt": checked(message).receipt, "lease": decimal(lease_seconds), **more}
    return form_request("POST", path_of("m", message.key), form)


def first_message(call: Call[list[Message]]) -> Call[Message | None]:
    return Call(call.request, lambda response: next(iter(call.read(response)), None))


def received_messages(response: ApiResponse) -> list[Message]:
    return [] if response.check().status == 204 else [Message.parse(fields) for fields in response.json()]


def published_key(response: ApiResponse) -> str:
    key = response.check().body.decode().strip("\r\n")
    if not key.rpartition(":")[2].isdigit():
        raise ValueError(key[:40])
    return key


def document_of(response: ApiResponse) -> dict[str, Any]:
    return dict(response.json())


def no_result(response: ApiResponse) -> None:
    response.check()
