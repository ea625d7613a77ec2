"""Messages, policies and queue names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restmq.errors import InvalidInput
from restmq.model import Message, Policy, check_queue_name
from restmq.store import keys


@pytest.mark.parametrize(
    "name", ["a", "a b", "a/b", "a:b", "a:1", "ü€😀", "x" * 255, "QUEUESET", "queuestat", "*", "%"]
)
def test_a_queue_may_have_any_printable_name(name: str) -> None:
    assert check_queue_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        None,
        7,
        b"a",
        "",
        "x" * 256,
        "ü" * 128,
        "a\nb",
        "a\x00",
        "\x7f",
        "\x85",
        "\ud800",
        "AUTHKEY",
        "AUTHKEY:x",
        "queuestat::x",
    ],
)
def test_a_queue_name_that_could_do_harm_is_rejected(name: object) -> None:
    with pytest.raises(InvalidInput):
        check_queue_name(name)


names = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=40).filter(
    lambda name: not name.startswith(("AUTHKEY:", "queuestat:")) and name != "AUTHKEY"
)


def every_key(queue: str, number: int) -> set[bytes]:
    """All keys that a queue may ever have."""
    message = f"{queue}:{number}".encode()
    layout = keys.one_redis()
    found = layout.for_queue(queue)
    own = set(found) - {keys.QUEUE_SET, keys.DUE, keys.DEAD_LETTERS, found.channel, found.due_channel}
    return own | {
        *found.being_dropped(),
        layout.idempotency(queue, "0" * 64),
        message,
        message + b":refcount",
    }


@given(names, names, st.integers(1, 10**18), st.integers(1, 10**18))
def test_no_two_queues_share_a_key(one: str, other: str, number: int, another: int) -> None:
    if one != other:
        assert not every_key(one, number) & every_key(other, another)
    assert not {keys.QUEUE_SET, keys.DUE, keys.DEAD_LETTERS} & every_key(one, number)


@given(names, st.integers(1, 100), st.integers(1, 100))
def test_no_two_queues_share_a_key_even_if_one_is_named_like_a_message_of_the_other(
    name: str, number: int, another: int
) -> None:
    assert not every_key(name, number) & every_key(f"{name}:{number}", another)
    assert not every_key(name, number) & every_key(f"{name}:queue", another)


def test_policies_go_by_name_and_by_the_number_in_redis() -> None:
    assert Policy.parse("broadcast") is Policy(1)
    assert Policy.parse("roundrobin") is Policy(2)
    for nonsense in ("", "Broadcast", "1", "random"):
        with pytest.raises(InvalidInput, match="broadcast"):
            Policy.parse(nonsense)


@given(st.binary(max_size=200))
def test_any_value_is_restored_from_its_json(value: bytes) -> None:
    import base64

    fields = Message("q:1", value).fields()
    text = fields["value"]
    assert (base64.b64decode(text) if fields.get("encoding") == "base64" else text.encode()) == value
