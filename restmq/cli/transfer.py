"""Moves the messages of a queue to another server, or to another queue.

Rules by which an interrupted move can be repeated, and loses or doubles nothing:

1. A message is removed from the source only after the target has confirmed it. A ready message is leased, published and
   acked. A delayed message or a dead letter, which can't be leased, is peeked at, published and deleted.
2. The idempotency key of a publish is derived from the source's URL, the message's key there and its value. So the
   target adds a message once, however often it is sent within 24 hours. A conflict means that the message was sent
   before with another remaining delay or time to live: it is there already.
3. A message is published only in the first half of its lease. Once the lease has ended, a consumer of the source may
   have the message.
4. The answer to a lease may be lost, and then messages are leased that nobody has. They come before the ready ones. So
   the move waits until they return, and goes on with the first one.
5. A message that a consumer of the source took before it could be deleted there is deleted at the target. If the answer
   to an attempt to delete it was lost, that attempt may have removed it. So then it stays at the target.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import click

from restmq.client import Busy, Client, Message, Unreachable
from restmq.errors import Conflict, LeaseGone, NotAllowed, RestMQError
from restmq.model import DELAY_SECONDS_MAX

_BATCH = 100
_ACKS_AT_ONCE = 4


class Transfer:
    """Moves messages from one server to another.

    Args:
        lease_seconds: duration of the leases at the source.
        into: the queue that gets the messages; empty for the queue of the same name.
        stopping: is set when the move is to end after the current message.
        moved: called with the number of messages that were moved.
    """

    def __init__(
        self,
        source: Client,
        target: Client,
        *,
        lease_seconds: float,
        stopping: threading.Event,
        moved: Callable[[int], None],
        into: str = "",
    ) -> None:
        self._source = source
        self._target = target
        self._lease_seconds = lease_seconds
        self._stopping = stopping
        self._moved = moved
        self._into = into
        self._source_once = Client(source.server, retry_seconds=0, timeout_seconds=source.timeout_seconds)
        self._are_distinct = source.server == target.server  # then the queues differ
        self._threads = ThreadPoolExecutor(_ACKS_AT_ONCE, "ack")

    def stop(self) -> None:
        """Ends all requests."""
        for client in (self._source, self._source_once, self._target):
            client.stop()

    def close(self) -> None:
        """Waits for the acks that are being sent."""
        self._threads.shutdown()
        self._source_once.close()

    def move_ready(self, queue: str, in_order: bool) -> int:
        """Moves messages until none is ready. Returns the number moved.

        Args:
            in_order: stop at once if other messages are leased, which would come before the ready ones.
        """
        count = 0
        while not self._stopping.is_set():
            safe_until = time.monotonic() + self._lease_seconds / 2
            messages = self._source.lease_many(queue, _BATCH, self._lease_seconds)
            if not messages:
                break
            if in_order and self._source.stats(queue)["leased"] > len(messages):
                self._give_back(messages)
                break
            acks: list[Future[bool]] = []
            try:
                self._check_servers_differ(messages[0])
                for message in messages:
                    if time.monotonic() >= safe_until or self._stopping.is_set():
                        break
                    self._publish(queue, message)
                    acks.append(self._threads.submit(self._ack, message))
            finally:
                acked = self._finish(acks)
                self._give_back(messages[len(acks) :])
            count += acked
            self._moved(acked)
        return count

    def _ack(self, message: Message) -> bool:
        try:
            self._source.ack(message)
        except LeaseGone:  # the message is leased again later, and acked then; or the answer to the ack was lost
            return self._source.find(message.key) is None
        return True

    def _finish(self, acks: list[Future[bool]]) -> int:
        """Waits for the acks. Returns the number of messages that are acked. Raises the first error."""
        try:
            return sum(ack.result() for ack in acks)
        finally:
            for ack in acks:
                ack.cancel()

    def _give_back(self, messages: list[Message]) -> None:
        """Returns leased messages to their places. If the source is away, they return when their leases end."""
        for message in messages:
            try:
                self._source.nack(message)
            except LeaseGone:
                continue
            except RestMQError:
                return

    def move_resting(self, queue: str, place: str) -> int:
        """Moves delayed messages or dead letters until there are none. Returns their number."""
        count = 0
        while True:
            before = count
            for seen in self._source.peek(queue, place, count=_BATCH):
                if self._stopping.is_set():
                    return count
                message = self._source.find(seen.key)
                if message is None or message.more["state"] != place:
                    continue
                self._check_servers_differ(message)
                key = self._publish(queue, message)
                if self._delete(queue, message.key):
                    count += 1
                    self._moved(1)
                elif key:  # a consumer of the source has it
                    self._target.delete(self._into or queue, key)
            if count == before:
                return count

    def _delete(self, queue: str, key: str) -> bool:
        """Deletes a message of the source. Returns False if it is sure that it was not there any more."""
        try:
            return self._source_once.delete(queue, key)
        except (Busy, Unreachable):
            self._source.delete(queue, key)
            return True

    def _publish(self, queue: str, message: Message) -> str:
        """Publishes the message at the target. Returns its new key, or '' if it is there already."""
        now_ms = time.time() * 1000
        expires_ms = message.more.get("expires", 0)
        ttl_seconds = max(0.001, (expires_ms - now_ms) / 1000) if expires_ms else 0
        state = message.more.get("state")
        due_ms = message.more["due"] if state == "delayed" else 0
        delay_seconds = min(DELAY_SECONDS_MAX, max(0.0, (due_ms - now_ms) / 1000))
        origin = f"{self._source.server.url.rstrip('/')}\n{message.key}\n".encode()
        try:
            return self._target.publish(
                self._into or queue,
                message.value,
                delay_seconds=delay_seconds,
                ttl_seconds=ttl_seconds,
                idempotency_key="move-" + hashlib.sha256(origin + message.value).hexdigest(),
                content_type=message.more.get("content_type", ""),
                headers=message.more.get("headers"),
                dead=state == "dead",
            )
        except Conflict:
            return ""

    def _check_servers_differ(self, message: Message) -> None:
        """Raises UsageError if the target has the same message in the same state: both URLs lead to the same queues."""
        if self._are_distinct:
            return
        with suppress(NotAllowed):  # the target's credentials may permit nothing but publishing
            there = self._target.find(message.key)
            if there is not None and there == self._source.find(message.key):
                raise click.UsageError("--from and --to lead to the same queues.")
        self._are_distinct = True
