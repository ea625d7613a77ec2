"""Parameters that several routes take."""

from __future__ import annotations

from restmq.delivery.consumer import PREFETCH
from restmq.handlers.declare import Parameter
from restmq.model import BATCH_MAX, DELAY_SECONDS_MAX, LEASE_SECONDS_MAX, TTL_SECONDS_MAX, WAIT_SECONDS_MAX
from restmq.schema.fields import (
    BYTES,
    CALLBACK_NAME,
    IDEMPOTENCY_KEY,
    MESSAGE_KEY,
    QUEUE_NAME,
    RECEIPT_TEXT,
    Number,
    Text,
    whole,
)

_LEASE_TEXT = "for how many seconds the message is hidden under a lease; empty for the queue's setting."
_LEASE = Number(1, LEASE_SECONDS_MAX, empty=0)

CALLBACK = Parameter("callback", CALLBACK_NAME, "the name of a JavaScript function, which makes the answer JSONP.")
QUEUE = Parameter("queue", QUEUE_NAME, "the queue's name.")
QUEUE_NEEDED = Parameter("queue", QUEUE_NAME, "the queue's name.", required=True)
COUNT = Parameter("count", whole(1, BATCH_MAX), "up to so many messages, in an array.")
LEASE = Parameter("lease", _LEASE, _LEASE_TEXT)
WAIT = Parameter("wait", Number(0, WAIT_SECONDS_MAX), "wait up to so many seconds for a message.")
PREFETCHED = Parameter("prefetch", whole(1, BATCH_MAX), f"how many leased messages may be held at a time ({PREFETCH}).")
LAST_EVENT_ID = Parameter("last_event_id", Text(), "the key of the message that was seen last: go on after it.")
LAST_EVENT_ID_HEADER = Parameter("Last-Event-ID", Text(), "the same, as browsers say it when they reconnect.")

VALUE = Parameter("value", BYTES, "the message.")
MSG = Parameter("msg", BYTES, "another name for value.")
TTL = Parameter("ttl", Number(0, TTL_SECONDS_MAX), "the message vanishes after so many seconds; 0 for never.")
DELAY = Parameter("delay", Number(0, DELAY_SECONDS_MAX), "the message comes up after so many seconds.")
IDEMPOTENCY = Parameter("Idempotency-Key", IDEMPOTENCY_KEY, "what was sent with it before is not added again.")

RECEIPT = Parameter("receipt", RECEIPT_TEXT, "the receipt that came with the leased message.", required=True)
LEASE_ANEW = Parameter(
    "lease",
    Number(0, LEASE_SECONDS_MAX),
    "for how many seconds from now, or 0 to give the message back.",
    required=True,
)
LETTER = Parameter("key", MESSAGE_KEY, "the key of the one that is meant, instead of all.")
FIRST = Parameter("first", whole(0, 10**12), "pass over so many.")
QUEUES = Parameter("count", whole(1, 100_000), "show so many queues, in the order of their names.")
