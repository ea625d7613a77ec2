"""What all live queues of a daemon share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from restmq.core import RedisOperations
from restmq.delivery.backpressure import BackpressureLimits, SlowConsumers
from restmq.delivery.inbox import ByteBudget
from restmq.delivery.tasks import PendingCalls
from restmq.http.turns import Turns


@dataclass(slots=True)
class FanoutCounters:
    """Numbers that only grow.

    Attributes:
        dropped: consumers that were closed because they were too far behind.
        gaps: consumers and taps that were told of a gap.
        lost_subscriptions: times that the daemon's subscription to Redis broke.
    """

    dropped: int = 0
    gaps: int = 0
    lost_subscriptions: int = 0


@dataclass(slots=True, frozen=True, kw_only=True)
class Shared:
    """Attributes:
    daemon: the daemon's own name, which is in its channels.
    read_budget: limits the bytes of the values that are being read from Redis.
    calls: calls that must end before the daemon stops.
    """

    core: RedisOperations
    reactor: Any
    limits: BackpressureLimits
    daemon: str
    slow_consumers: SlowConsumers
    read_budget: ByteBudget
    calls: PendingCalls
    turns: Turns
    counters: FanoutCounters = field(default_factory=FanoutCounters)
