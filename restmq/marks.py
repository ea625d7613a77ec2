"""Marks by which who resumes knows what was published before and after its look at the history."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet import defer

from restmq.consumer import HeldBack

Found = TypeVar("Found")


class Marks:
    """The marks that were published and have not been heard yet."""

    def __init__(self) -> None:
        self._awaited: dict[str, tuple[HeldBack, defer.Deferred[None]]] = {}

    async def look(self, held: HeldBack, look: Callable[[str], Awaitable[Found]]) -> Found:
        """What a look at the history finds that publishes a mark in the same instant, when that mark was heard.

        Raises CancelledError if it may have gone by unheard, and what the look raises.
        """
        mark = secrets.token_hex(8)
        heard: defer.Deferred[None] = defer.Deferred()
        self._awaited[mark] = held, heard
        try:
            found = await look(mark)
            await heard
        finally:
            self._awaited.pop(mark, None)
            heard.addErrback(lambda _: None)  # nobody waits for it where the look failed
        return found

    def knows(self, mark: str) -> bool:
        """Whether it is one of this daemon's."""
        return mark in self._awaited

    def hear(self, mark: str) -> None:
        """It was heard on the channel: what comes now was published after it."""
        held, heard = self._awaited[mark]
        held.reach_mark()
        heard.callback(None)

    def give_up(self) -> None:
        """They may have gone by while nobody listened: who resumes is to come again."""
        for _, heard in list(self._awaited.values()):
            if not heard.called:
                heard.cancel()
