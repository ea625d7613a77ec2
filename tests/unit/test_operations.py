"""One script call for many callers, and failures between two calls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet import defer

from restmq.errors import StoreUnavailable
from restmq.model import Message
from restmq.queues.base import Operations
from restmq.store import keys

AWAY = StoreUnavailable("away")


def shared_out(askers: int, *answers: tuple[int, bool] | StoreUnavailable) -> tuple[list[Any], list[int]]:
    """The result of each caller, and the number of messages requested by each call.

    Args:
        answers: for each call, the number of messages, and whether there are more.
    """
    asked: list[int] = []
    waiting = list(answers)

    async def ask(count: int) -> tuple[list[Any], bool]:
        asked.append(count)
        answer = waiting.pop(0)
        if isinstance(answer, StoreUnavailable):
            raise answer
        found, more = answer
        flat = [0, *(b"q:%d" % number for number in range(found)), *[b"v"] * found]
        return flat if found else [], more

    operations = Operations(SimpleNamespace(layout=keys.one_redis()))  # type: ignore[arg-type]
    results: list[Any] = []
    defer.ensureDeferred(operations._share_out("q", askers, ask)).addBoth(results.append)
    assert not waiting
    return results[0], asked


def kinds(shares: list[Any]) -> list[Any]:
    return [Message if isinstance(share, Message) else share for share in shares]


def test_an_empty_queue_is_not_asked_again() -> None:
    shares, asked = shared_out(3, (2, False))
    assert (kinds(shares), asked) == ([Message, Message, None], [3])


def test_a_script_that_stopped_at_its_limit_is_called_again() -> None:
    shares, asked = shared_out(3, (2, True), (1, False))
    assert (kinds(shares), asked) == ([Message] * 3, [3, 1])


def test_messages_that_were_taken_reach_their_callers_even_if_a_later_call_fails() -> None:
    shares, asked = shared_out(4, (1, True), (1, True), AWAY)
    assert (kinds(shares), asked) == ([Message, Message, AWAY, AWAY], [4, 3, 2])


def test_if_no_call_succeeds_all_callers_get_the_error() -> None:
    failure, _ = shared_out(2, AWAY)
    assert failure.value is AWAY  # type: ignore[attr-defined]
