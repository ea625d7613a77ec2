"""The limits of HTTP."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True, kw_only=True)
class Limits:
    """Limits per request, per connection, per address and in total. ``server.options`` describes each of them."""

    request_line_bytes: int = 8 * 1024
    header_bytes: int = 64 * 1024
    header_fields: int = 100
    body_bytes: int = 16 * 1024 * 1024
    requests_waiting: int = 16  # pipelined on one connection; slightly more if small ones came in one piece
    request_seconds: float = 30.0
    idle_seconds: float = 75.0
    connections: int = 10_000
    connections_per_address: int = 2_000
    form_bytes: int = 1024 * 1024  # without its longest field
    received_bytes: int = 512 * 1024 * 1024
    received_bytes_per_address: int = 256 * 1024 * 1024
    unread_bytes: int = 512 * 1024 * 1024
    unread_bytes_per_address: int = 256 * 1024 * 1024
    unread_seconds: float = 30.0
    bytes_per_second: int = 16 * 1024
