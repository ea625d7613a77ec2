"""Counts requests by route, method and status, with their durations, and writes each request to the access log.

Every request is counted here, so each step is one method call that increments plain counters.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from restmq.http.request import Request
from restmq.monitoring.access_log import AccessLog

#: Upper bounds of the histogram's buckets in seconds; a long poll may take a minute.
BOUNDS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
#: The client disconnected before its answer (nginx's number; no RFC defines it).
CLIENT_GONE = 499


@dataclass(slots=True)
class Durations:
    """A histogram: number of requests per bucket (the last has no upper bound), and the sum of their durations."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_SECONDS) + 1))
    seconds: float = 0.0


#: By method and status.
Outcomes = defaultdict[tuple[str, int], Durations]


class Traffic:
    """All requests of this daemon.

    Args:
        clock: monotonic seconds.
        log: the access log; None for no access log.

    Attributes:
        routes: outcomes by the route's template. Their number is bounded by routes, methods and statuses.
        refusals: number of requests and connections refused before a handler saw them, by status.
        sqs_errors: number of errors of the SQS interface, also of entries of batches, by operation and code.
    """

    def __init__(self, clock: Callable[[], float], log: AccessLog | None) -> None:
        self.clock = clock
        self.log = log
        self.routes: defaultdict[str, Outcomes] = defaultdict(lambda: defaultdict(Durations))
        self.refusals: Counter[int] = Counter()
        self.sqs_errors: Counter[tuple[str, str]] = Counter()

    def arrived(self, request: Request, route: str) -> None:
        """The request is complete, and its handler begins. Its duration is measured from now on."""
        request.route = route
        request.arrived_at = self.clock()
        if self.log is not None:
            request.id = self.log.identify(request)

    def answered(self, request: Request, status: int, body_bytes: int | None = None) -> None:
        """The response is sent; of a stream, its head."""
        took_seconds = self.clock() - request.arrived_at
        durations = self.routes[request.route][request.method, status]
        durations.counts[bisect_left(BOUNDS_SECONDS, took_seconds)] += 1
        durations.seconds += took_seconds
        if self.log is not None:
            self.log.answered(request, status, body_bytes, took_seconds)

    def refused(self, address: str, status: int) -> None:
        """A request or a connection was refused before a handler saw it."""
        self.refusals[status] += 1
        if self.log is not None:
            self.log.refused(address, status)
