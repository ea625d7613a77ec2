"""Hooks for schemathesis: they shorten waits, and make fields agree where JSON Schema cannot require it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import schemathesis

_WAIT_SECONDS = 0.02
_WAIT_SECONDS_MAX = 60


def _shortened(fields: dict[str, Any]) -> dict[str, Any]:
    try:
        is_wait = 0 < float(fields.get("wait", 0)) <= _WAIT_SECONDS_MAX
    except (TypeError, ValueError):
        return fields
    return {**fields, "wait": _WAIT_SECONDS} if is_wait else fields


def _of_queue(fields: dict[str, Any], queue: str) -> dict[str, Any]:
    """Replaces a valid key by one of the queue in the path."""
    key = fields.get("key")
    is_key = isinstance(key, str) and re.fullmatch("[^\\x00-\\x1f\\x7f-\\x9f]+:[0-9]+", key)
    return {**fields, "key": f"{queue}:1"} if is_key and queue else fields


def _nack_alone(fields: dict[str, Any]) -> dict[str, Any]:
    """A delay and a reason go with a nack, i.e. with the lease 0."""
    try:
        is_nack = float(fields.get("lease", 0)) == 0
    except (TypeError, ValueError):
        return fields
    return fields if is_nack else {name: value for name, value in fields.items() if name not in ("delay", "reason")}


def _of_one_queue(leases: Any, queue: object) -> Any:
    """The keys of several leases are made keys of one queue."""
    keys = [lease.get("key") for lease in leases if isinstance(lease, dict)] if isinstance(leases, list) else []
    if not keys or not all(
        isinstance(key, str) and re.fullmatch("[^\\x00-\\x1f\\x7f-\\x9f]+:[0-9]+", key) for key in keys
    ):
        return leases
    name = queue if isinstance(queue, str) else keys[0].rpartition(":")[0]
    return [{**lease, "key": f"{name}:1"} if isinstance(lease, dict) else lease for lease in leases]


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    queue_in_path = unquote(str((case.path_parameters or {}).get("queue", "")))  # it is percent-encoded
    if isinstance(case.query, dict):
        case.query = _of_queue(_shortened(case.query), queue_in_path)
        if "count" in case.query:  # a raw value is one message
            case.query = {name: value for name, value in case.query.items() if name != "raw"}
        if case.path == "/ws/":  # an id has as many positions as the request has queues
            case.query = {name: value for name, value in case.query.items() if name != "last_event_id"}
    if not isinstance(case.body, dict):
        return
    case.body = _of_queue(_shortened(case.body), queue_in_path)
    if case.path.startswith("/m/"):
        case.body = _nack_alone(case.body)
    if "messages" in case.body:
        case.body = {**case.body, "messages": _of_one_queue(case.body["messages"], case.body.get("queue"))}
    queue, key = case.body.get("queue"), case.body.get("key")
    if "receipt" in case.body and isinstance(queue, str) and isinstance(key, str) and key.rpartition(":")[0] != queue:
        case.body = {name: value for name, value in case.body.items() if name != "queue"}
    if queue_in_path and case.body.get("dead_letter") == queue_in_path:
        case.body = {**case.body, "dead_letter": "another"}
    if case.path.startswith("/queue") and case.media_type != "application/json":
        # JSON Schema cannot require that a string holds JSON.
        case.body = {
            name: '{"cmd": "list"}' if name in ("body", "msg") and isinstance(value, str) else value
            for name, value in case.body.items()
        }
