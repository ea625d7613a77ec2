"""The address of Redis, and the limits on calls to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True, kw_only=True)
class StoreSettings:
    """The address of Redis, and the limits on calls to it.

    Attributes:
        pool: number of connections for calls; pub/sub has its own.
        call_timeout_seconds: time limit for each call.
        calls_in_flight_max: maximum number of unanswered calls per connection; more are refused.
        replicas: number of replicas that must have a durable write before it is answered (``WAIT``); 0 to answer
            without asking them.
    """

    host: str = "127.0.0.1"
    port: int = 6379
    db: int = 0
    pool: int = 10
    username: str | None = None
    password: str | None = None
    socket_path: str | None = None
    call_timeout_seconds: float = 5.0
    calls_in_flight_max: int = 10_000
    replicas: int = 0

    def where(self) -> str:
        """The address, for people; without any secret."""
        return self.socket_path or f"{self.host}:{self.port}"
