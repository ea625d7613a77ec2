"""The workers of one server: who is there, and what they have counted together, also those that have ended.

Whatever is shown of a worker's counts was published to all of them: the question holds the counts of the one who asks,
all hear all answers, and each takes what it hears in the order in which Redis sent it. So all know the same. A worker
that ends says what it has counted at last, and one that comes asks for all that is known. So no sum goes back, whoever
is asked for it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from restmq.monitoring.ledger import Counts, Ledger, check_counts
from restmq.monitoring.peers import JOIN_SECONDS, Peers, in_time

_SAMPLES_MAX = 200


@dataclass(slots=True, frozen=True)
class Membership:
    """Which of a server's workers this process is. A daemon that has none is its own only one.

    Attributes:
        group: the server's own name among those on one Redis; empty where there are no workers.
        worker: its place, from 1 on; one that takes over from another has the same.
        serial: no two of a group have the same, and later ones have a greater one.
    """

    group: str = ""
    worker: int = 1
    serial: int = 1


#: A sample of a metric: its name, its labels, its value.
Sample = tuple[str, dict[str, str], float]


@dataclass(slots=True, frozen=True)
class Present:
    """What a worker says of itself.

    Attributes:
        peer: under which it can be asked.
        counts: what it has counted.
        connections: of clients.
        samples: the metrics of its process.
    """

    peer: str
    worker: int
    serial: int
    counts: Counts
    connections: int
    samples: list[Sample] = field(default_factory=list)

    @classmethod
    def unpack(cls, packed: Any) -> Present:
        """ValueError if it is nothing that ``pack`` makes."""
        if not isinstance(packed, dict):
            raise ValueError("a worker's word is an object")
        numbers: list[Any] = [packed.get(name) for name in ("worker", "serial", "connections")]
        samples = packed.get("samples")
        if not all(type(number) is int and 0 <= number < 1 << 53 for number in numbers):
            raise ValueError("whole numbers")
        if not isinstance(samples, list) or len(samples) > _SAMPLES_MAX or not all(map(_is_sample, samples)):
            raise ValueError("samples are a list")
        if not isinstance(packed.get("peer"), str):
            raise ValueError("a worker has a name")
        worker, serial, connections = numbers
        return cls(packed["peer"], worker, serial, check_counts(packed.get("counts")), connections, samples)

    def pack(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def _is_sample(sample: Any) -> bool:
    if not isinstance(sample, list) or len(sample) != 3:
        return False
    name, labels, value = sample
    if not isinstance(name, str) or not isinstance(labels, dict) or type(value) not in (int, float):
        return False
    return all(isinstance(text, str) for text in labels.values())


class Roster:
    """This worker among those of its server.

    Args:
        counts, connections, samples: what this one has to say of itself.
    """

    def __init__(
        self,
        peers: Peers,
        membership: Membership,
        reactor: Any,
        counts: Callable[[], Counts],
        connections: Callable[[], int],
        samples: Callable[[], list[Sample]],
    ) -> None:
        self.membership = membership
        self._peers = peers
        self._reactor = reactor
        self._counts = counts
        self._connections = connections
        self._samples = samples
        self._ledger = Ledger()
        peers.answer("counts", self._give, self._take)

    def total(self) -> Counts:
        """What was counted up to the last call, by all together."""
        return self._ledger.total()

    async def call(self) -> list[Present]:
        """Those who are there, in the order in which they came, this one among them.

        Where Redis is away that is this one alone, and the sums are those of the last call of any.
        """
        if self._peers.group is None:
            here = self._here()
            self._ledger.note(here.serial, here.counts)
            return [here]
        if not self._peers.joined.called:  # as long as it has not heard of the others, its sums are too small
            await in_time(self._peers.joined, self._reactor, JOIN_SECONDS)
        return await self._call(self._peers.group)

    def _here(self) -> Present:
        me = self.membership
        return Present(self._peers.id, me.worker, me.serial, self._counts(), self._connections(), self._samples())

    async def _call(self, group: bytes, new: bool = False) -> list[Present]:
        here = self._here()
        present = {here.serial: here}
        least_seconds = JOIN_SECONDS if new else 0
        answers = await self._peers.ask("counts", {**here.pack(), "new": new}, group, least_seconds)
        for answer in answers.values():
            with suppress(ValueError):
                found = Present.unpack(answer)
                present[found.serial] = found
        return [present[serial] for serial in sorted(present)]

    def _give(self, asker: Any) -> dict[str, Any]:
        word = self._here().pack()
        return {**word, "ledger": self._ledger.pack()} if isinstance(asker, dict) and asker.get("new") else word

    def _take(self, word: Any, _by: str) -> None:
        """Of all, this one among them: what is counted here is counted when it has been heard by all."""
        present = Present.unpack(word)
        self._ledger.note(present.serial, present.counts)
        if "ledger" in word:
            self._ledger.merge(word["ledger"])

    async def join(self) -> None:
        """Learns what was counted before this worker could hear it."""
        if self._peers.group is not None:
            await self._call(self._peers.group, new=True)

    async def leave(self) -> None:
        """Says what this worker has counted at last."""
        await self._peers.tell("counts", self._here().pack())
