"""Which calls share a script call, and when it goes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet import defer

from restmq.errors import StoreUnavailable
from restmq.store.batching import Batcher, TurnEnd


class Scene:
    """A batcher, and a Redis that answers when it is told to.

    Attributes:
        sent: kind and items of each script call, in the order in which they went out.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[str, list[Any]]] = []
        self._answers: list[defer.Deferred[Sequence[Any]]] = []
        self._next_turn: list[Callable[[], None]] = []
        self.batcher: Batcher[str, Any, Any] = Batcher(TurnEnd(self._call_later), self._send)

    def _call_later(self, seconds: float, call: Callable[[], None]) -> None:
        assert seconds == 0
        self._next_turn.append(call)

    async def _send(self, kind: str, items: list[Any]) -> Sequence[Any]:
        self.sent.append((kind, items))
        self._answers.append(defer.Deferred())
        answer: Sequence[Any] = await self._answers[-1]
        return answer

    def call(self, *items: Any, kind: str = "q") -> list[defer.Deferred[Any]]:
        return [self.batcher.add(kind, item) for item in items]

    def end_turn(self) -> None:
        calls, self._next_turn = self._next_turn, []
        for call in calls:
            call()

    def end_turns(self) -> None:
        """Lets turns end until nothing is left to send."""
        while self._next_turn:
            self.end_turn()

    def answer(self, number: int, answer: Any) -> None:
        """Answers the script call with this number, with results or a failure."""
        self._answers[number].callback(answer)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def results(calls: list[defer.Deferred[Any]]) -> list[Any]:
    """The results that have come; an error for a call that failed."""
    found: list[Any] = []
    for call in calls:
        call.addErrback(lambda failure: failure.value).addCallback(found.append)
    return found


def test_a_call_that_comes_alone_goes_out_at_the_end_of_its_turn(scene: Scene) -> None:
    scene.call(1)
    scene.end_turn()
    assert scene.sent == [("q", [1])]


def test_calls_of_one_turn_share_a_script_call_with_those_of_the_next(scene: Scene) -> None:
    scene.call(1, 2)
    scene.end_turn()
    scene.call(3, 4)
    scene.end_turn()
    assert scene.sent == []
    scene.end_turn()
    assert scene.sent == [("q", [1, 2, 3, 4])]


def test_calls_wait_for_three_more_turns_at_most_however_many_come(scene: Scene) -> None:
    for turn in range(5):
        scene.call(2 * turn, 2 * turn + 1)
        scene.end_turn()
    assert scene.sent == [("q", list(range(8)))]


def test_while_a_script_call_is_unanswered_a_call_waits_for_a_turn_without_others(scene: Scene) -> None:
    scene.call(1)
    scene.end_turn()
    scene.call(2)
    scene.end_turn()
    assert scene.sent == [("q", [1])]
    scene.end_turn()
    assert scene.sent == [("q", [1]), ("q", [2])]


def test_a_script_call_that_is_never_answered_holds_up_no_other(scene: Scene) -> None:
    of_hung = results(scene.call(1, kind="hung"))
    scene.end_turns()
    of_other = results(scene.call(2, 3, kind="other"))
    later = results(scene.call(4, kind="hung"))
    scene.end_turns()
    assert scene.sent == [("hung", [1]), ("other", [2, 3]), ("hung", [4])]
    scene.answer(1, ["two", "three"])
    assert (of_hung, of_other, later) == ([], ["two", "three"], [])


def test_after_an_answer_a_call_that_comes_alone_does_not_wait(scene: Scene) -> None:
    scene.call(1)
    scene.end_turns()
    scene.answer(0, ["one"])
    scene.call(2)
    scene.end_turn()
    assert scene.sent == [("q", [1]), ("q", [2])]


def test_a_failure_reaches_the_callers_of_its_script_call_and_no_others(scene: Scene) -> None:
    of_failing, of_other = results(scene.call(1, 2, kind="failing")), results(scene.call(3, kind="other"))
    scene.end_turns()
    problem = StoreUnavailable("the node is gone")
    scene.answer(0, defer.fail(problem))
    scene.answer(1, ["three"])
    assert (of_failing, of_other) == ([problem, problem], ["three"])
    scene.call(4, kind="failing")
    scene.end_turn()
    assert scene.sent[2:] == [("failing", [4])]


def test_each_caller_gets_its_own_result_or_error(scene: Scene) -> None:
    found = results(scene.call(1, 2, 3))
    scene.end_turns()
    problem = StoreUnavailable("no")
    scene.answer(0, ["one", problem, "three"])
    assert found == ["one", problem, "three"]


def test_script_calls_go_out_in_the_order_of_their_first_calls(scene: Scene) -> None:
    scene.call(1, kind="a")
    scene.call(2, kind="b")
    scene.end_turn()
    scene.call(3, kind="c")
    scene.call(4, kind="a")
    scene.end_turns()
    assert scene.sent == [("a", [1, 4]), ("b", [2]), ("c", [3])]


def test_waiting_calls_go_out_at_once_before_another_one_of_their_kind(scene: Scene) -> None:
    scene.call(1, 2)
    scene.batcher.flush("q")
    assert scene.sent == [("q", [1, 2])]
    scene.end_turns()
    assert scene.sent == [("q", [1, 2])]


def test_many_or_large_calls_do_not_wait(scene: Scene) -> None:
    scene.call(*range(1001))
    assert scene.sent == [("q", list(range(1000)))]
    scene.batcher.add("large", b"x", size_bytes=(1 << 20) + 1)
    assert scene.sent[1:] == [("large", [b"x"])]
    scene.end_turns()
    assert scene.sent[2:] == [("q", [1000])]
