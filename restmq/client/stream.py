"""A live stream of messages that continues over any number of connections. This module does no I/O.

The stream uses comet, not Server-Sent Events: a line of JSON keeps every byte of a value, but Server-Sent Events turn
all line endings into one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from restmq.client.errors import BadAnswer
from restmq.client.exchange import RESPONSE_BYTES_MAX, ApiRequest, Message
from restmq.model import check_queue_name


class LiveStream:
    """The state that a consumer, or a tap, keeps from one connection to the next.

    Args:
        is_tap: whether to watch the queue and take nothing. Then only ``last_key`` and ``on_gap`` have an effect.
        last_key: key of the last message seen. If the queue keeps a history, the messages after it come first.
        lease_seconds: duration of each message's lease; the queue must have the policy roundrobin. 0 for the queue's
            setting, None (the default) to take messages for good.
        prefetch: maximum number of leased messages that are not yet acked (default: the server's).
        on_gap: called with the last key seen if messages after it were missed.
    """

    def __init__(
        self,
        queue: str,
        *,
        is_tap: bool = False,
        last_key: str = "",
        lease_seconds: float | None = None,
        prefetch: int | None = None,
        on_gap: Callable[[str], None] | None = None,
    ) -> None:
        self._path = ("/tap/" if is_tap else "/c/") + quote(check_queue_name(queue), safe="")
        self._last_key = last_key
        self._on_gap = on_gap
        self._query: dict[str, Any] = {}
        if lease_seconds is not None:
            self._query["lease"] = f"{lease_seconds:.3f}" if lease_seconds else ""
            if prefetch is not None:
                self._query["prefetch"] = prefetch
        self._unread: list[bytes] = []
        self._unread_bytes = 0

    def request(self) -> ApiRequest:
        """The request for a new connection. Discards an incomplete line of the previous one."""
        self._unread, self._unread_bytes = [], 0
        query = self._query | ({"last_event_id": self._last_key} if self._last_key else {})
        return ApiRequest("GET", self._path + ("?" + urlencode(query) if query else ""))

    def feed(self, data: bytes) -> list[Message]:
        """The messages that this data completes. Raises BadAnswer if it is not a stream of messages."""
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join(self._unread) + lines[0]
            self._unread, self._unread_bytes = [], 0
        self._unread.append(rest)
        self._unread_bytes += len(rest)
        if self._unread_bytes > RESPONSE_BYTES_MAX:
            raise BadAnswer(f"a line of the stream is longer than {RESPONSE_BYTES_MAX} bytes; check the URL.")
        return [message for line in lines if line.strip() for message in self._read(line)]

    def _read(self, line: bytes) -> list[Message]:
        try:
            fields = json.loads(line)
            if fields.get("event") == "gap":
                if self._on_gap is not None:
                    self._on_gap(fields["last_event_id"])
                return []
            message = Message.parse(fields)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadAnswer(
                "the stream does not hold RestMQ messages; check that the URL is a RestMQ server's."
            ) from None
        self._last_key = message.key
        return [message]
