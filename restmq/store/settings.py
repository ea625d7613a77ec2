"""Where Redis is, and the limits on calls to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class StoreSettings:
    """Where Redis is, and how long and how much we wait for it."""

    host: str = "127.0.0.1"
    port: int = 6379
    db: int = 0
    pool: int = 10
    username: str | None = None
    password: str | None = None
    socket_path: str | None = None
    call_timeout_seconds: float = 5.0
    calls_in_flight_max: int = 10_000
    #: What must survive Redis is answered when so many replicas have it (WAIT); 0 for not asking them.
    replicas: int = 0

    def where(self) -> str:
        """For people: the address, without any secret."""
        return self.socket_path or f"{self.host}:{self.port}"
