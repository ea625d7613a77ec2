"""Unknown names of parameters and fields: a mistake in a name must not silently change the effect of a request.

1. A request that deletes something or changes settings accepts known names only.
2. Any other request ignores most unknown names, because old clients and caches send some (``_=1700000000``). It rejects
   a name that resembles a known one (``leese``) or has a meaning in another request (``idempotency_key`` in a form).
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import SequenceMatcher

from restmq.errors import InvalidInput

#: Names with a meaning in some request, without the names that the first RestMQ ignored in its other requests.
MEANINGFUL = frozenset((
    "count", "counts", "dead", "dead_letter", "delay", "expires", "first", "history", "history_bytes",
    "idempotency_key", "key", "last_event_id", "lease", "list", "max_deliveries", "max_length", "messages",
    "prefetch", "raw", "reason", "receipt", "remove", "retry_delay", "retry_delay_max", "tap", "to", "values", "wait",
))  # fmt: skip
#: More unknown names are rejected without comparing them.
_UNKNOWN_MAX = 20
_NAME_CHARACTERS_MAX = 40
_SIMILARITY = 0.7


def check_names(unknown: Collection[str], known: Collection[str], strict: bool = False) -> None:
    """Raises InvalidInput for an unknown name that must not be ignored.

    Args:
        strict: whether no unknown name may be ignored.
    """
    if not unknown:
        return
    if len(unknown) > _UNKNOWN_MAX:
        raise InvalidInput(f"the request has more than {_UNKNOWN_MAX} unknown parameters.")
    for name in sorted(unknown):
        meant = _most_similar(name, known)
        if meant is not None:
            raise InvalidInput(f"unknown parameter {name[:_NAME_CHARACTERS_MAX]!r}; did you mean {meant!r}?")
        if strict or name in MEANINGFUL:
            raise InvalidInput(
                f"unknown parameter {name[:_NAME_CHARACTERS_MAX]!r}; this request has {', '.join(sorted(known))}."
            )


def _most_similar(name: str, known: Collection[str]) -> str | None:
    if len(name) > _NAME_CHARACTERS_MAX:
        return None
    similar = [(SequenceMatcher(None, name.lower(), each.lower()).ratio(), each) for each in sorted(known)]
    ratio, best = max(similar, default=(0.0, ""))
    return best if ratio > _SIMILARITY else None
