"""Log lines about Redis: each problem is logged once, and again when it changes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.logger import Logger

from restmq.store.connection import ErrorReply

log = Logger()

_FORGET_SECONDS = 600.0
_REASONS_MAX = 100
_COUNT_SECONDS = 60.0
_KINDS_MAX = 100


class Outage:
    """Whether Redis can be used, and if not, why. Logs the loss, each reason once, and the end.

    Attributes:
        reason: why Redis cannot be used, for operators; empty if it can, or if that is not known yet.
        complaint: the same for clients; empty for no more than that Redis is away.

    Args:
        quiet_seconds: time from now in which no problem is logged.
    """

    def __init__(self, where: str, reactor: Any, quiet_seconds: float = 0.0) -> None:
        self._where = where
        self._reactor = reactor
        self._quiet_until = reactor.seconds() + quiet_seconds if quiet_seconds else 0.0
        self._was_usable = False
        self._lost = False
        self._last_seen: dict[str, float] = {}
        self.reason = ""
        self.complaint = ""

    def begin(self, why: str) -> None:
        """The last connection was lost."""
        if not self._lost:
            log.warn("the connection to Redis at {where} is lost: {why}", where=self._where, why=why)
        self._lost = True
        self.reason = self.complaint = ""

    def problem(self, reason: str, complaint: str, is_down: bool) -> None:
        """A connection does not come up, for this reason. It is logged unless it was seen in the last ten minutes.

        Args:
            is_down: whether there is no other connection.
        """
        if is_down:
            self.reason, self.complaint = reason, complaint
            self._lost = self._was_usable
        now = self._reactor.seconds()
        if now < self._quiet_until:
            return
        if now - self._last_seen.get(reason, -_FORGET_SECONDS) >= _FORGET_SECONDS:
            log.error("Redis at {where} cannot be used: {reason}.", where=self._where, reason=reason.rstrip("."))
            if len(self._last_seen) >= _REASONS_MAX:
                self._last_seen.clear()
        self._last_seen[reason] = now

    def usable(self) -> None:
        """There is a connection; whether it lasts is not known yet."""
        self.reason = self.complaint = ""
        self._was_usable = True

    def end(self) -> None:
        """A connection has lasted."""
        if self._lost:
            log.info("Redis at {where} answers again.", where=self._where)
        self._lost = False
        self._last_seen.clear()


class Refusals:
    """Logs the first refusal of each kind at once, and a count of those that follow each minute.

    Attributes:
        last: the last refusal, in Redis' words; empty if there was none.
    """

    def __init__(self, reactor: Any) -> None:
        self.last = ""
        self._reactor = reactor
        self._counts: Counter[str] = Counter()
        self._timer: Any = None

    def note(self, error: ErrorReply) -> bool:
        """Returns whether this refusal is the first of its kind."""
        self.last = str(error)
        kind = error.code
        if kind == "ERR" and len(self._counts) < _KINDS_MAX:
            kind = str(error).partition(" script: ")[0]
        if kind in self._counts:
            self._counts[kind] += 1
            return False
        self._counts[kind] = 0
        log.warn("Redis refused an operation: {error}", error=str(error))
        if self._timer is None:
            self._timer = self._reactor.callLater(_COUNT_SECONDS, self._summarize)
        return True

    def _summarize(self) -> None:
        """A kind that was not seen for a minute is new when it is seen again."""
        self._timer = None
        for kind, count in self._counts.items():
            if count:
                log.warn(
                    "Redis refused {count} more operations in the last {seconds} s: {kind}",
                    count=count,
                    seconds=round(_COUNT_SECONDS),
                    kind=kind,
                )
        self._counts = Counter({kind: 0 for kind, count in self._counts.items() if count})
        if self._counts:
            self._timer = self._reactor.callLater(_COUNT_SECONDS, self._summarize)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
