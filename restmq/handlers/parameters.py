"""Parameters that several routes take."""

from __future__ import annotations

from restmq.delivery.consumer import PREFETCH
from restmq.handlers.declare import Parameter
from restmq.model import LEASE_SECONDS_MAX, QUEUES_A_REQUEST_MAX
from restmq.schema import fields

JSONP_CALLBACK = Parameter("callback", fields.CALLBACK_NAME, "name of a JavaScript function; makes the answer JSONP.")
QUEUE_FIELD = Parameter("queue", fields.QUEUE_NAME, "name of the queue.")
REQUIRED_QUEUE = Parameter("queue", fields.QUEUE_NAME, "name of the queue.", required=True)
SEVERAL_QUEUES = Parameter(
    "queue", fields.QUEUE_NAMES, f"names of up to {QUEUES_A_REQUEST_MAX} queues; repeat it.", required=True
)
COUNT = Parameter("count", fields.BATCH_SIZE, "maximum number of messages; the answer is an array.")
LEASE = Parameter(
    "lease",
    fields.Number(1, LEASE_SECONDS_MAX, empty=0),
    "seconds to lease the message; empty for the queue's setting.",
)
WAIT = Parameter("wait", fields.WAIT_SECONDS, "seconds to wait for a message (default 0).")
RAW = Parameter("raw", fields.OneOf(("0", "1")), "1 for the value itself, with the headers that it was sent with.")
PREFETCHED = Parameter("prefetch", fields.BATCH_SIZE, f"maximum number of unacked messages (default {PREFETCH}).")
LAST_ID_OF_SEVERAL = Parameter("last_event_id", fields.ANY_TEXT, "id of the last event seen; resumes after it.")
LAST_EVENT_ID = Parameter("last_event_id", fields.ANY_TEXT, "key of the last message seen; resumes after it.")
LAST_ID_OF_TAP = Parameter(
    "last_event_id", fields.ANY_TEXT, "key of the last message seen; if it is not the last one, a gap."
)
TAP = Parameter("tap", fields.OneOf(("0", "1")), "1 for copies of the messages, as at /tap/{queue}; takes nothing.")
LAST_EVENT_ID_HEADER = Parameter("Last-Event-ID", fields.ANY_TEXT, "the same; browsers send it when they reconnect.")

VALUE = Parameter("value", fields.BYTES, "the message.")
MSG = Parameter("msg", fields.BYTES, "another name for value.")
TTL = Parameter("ttl", fields.TTL_SECONDS, "seconds until the message expires; 0 for never (default).")
DELAY = Parameter("delay", fields.DELAY_SECONDS, "seconds until the message joins the queue (default 0).")
DEAD = Parameter(
    "dead", fields.OneOf(("true", "false")), "true: the message is added as a dead letter (default false)."
)
IDEMPOTENCY = Parameter("Idempotency-Key", fields.IDEMPOTENCY_KEY, "a request repeated with the same key adds nothing.")

LEASE_RECEIPT = Parameter("receipt", fields.RECEIPT_TEXT, "receipt of the leased message.", required=True)
NEW_LEASE = Parameter(
    "lease", fields.Number(0, LEASE_SECONDS_MAX), "seconds from now until the lease ends; 0 to nack.", required=True
)
NACK_DELAY = Parameter(
    "delay",
    fields.DELAY_SECONDS,
    "with lease=0: seconds until the message comes back (default: the queue's setting retry_delay).",
)
NACK_REASON = Parameter(
    "reason", fields.REASON, "with lease=0: why the delivery failed; shown wherever the message is shown."
)
DEAD_LETTER_KEY = Parameter("key", fields.MESSAGE_KEY, "key of one dead letter; without it, all are meant.")
REDRIVE_TO = Parameter(
    "to", fields.QUEUE_NAME, "another queue that they go to, which needs the right to publish to it."
)
REMOVE = Parameter(
    "remove", fields.Flag(), "also remove the queue itself, with its settings, policy, status and counters."
)
FIRST = Parameter("first", fields.whole(0, 10**12), "number of entries to skip (default 0).")
COUNTS = Parameter("counts", fields.Flag(), "true: each queue has the fields of /stats/{queue} (default false).")
QUEUES = Parameter("count", fields.whole(1, 100_000), "maximum number of queues, in the order of their names.")

TAKING = (COUNT, LEASE, WAIT, RAW, JSONP_CALLBACK)
ADDING = (VALUE, MSG, TTL, DELAY, JSONP_CALLBACK)
LISTENING = (LEASE, PREFETCHED, LAST_EVENT_ID)
