"""``twistd restmq`` with what other projects' suites ask beside SQS. Run it as a module, with the arguments of twistd.

moto's tests ask its own server to forget everything, and STS for the number of the account. kombu's test of fan-out
needs a topic of SNS, which copies what is published to the queues that subscribed.
"""

from __future__ import annotations

import sys

from restmq.auth import guard
from restmq.frontends.sqs import names
from restmq.handlers.base import Handler
from restmq.handlers.declare import declare
from restmq.http.response import TEXT
from restmq.queues.sqs import SqsEntry
from restmq.web import ROUTES

ACCOUNT = "123456789012"
_SUBSCRIBERS: dict[str, list[str]] = {}


class ResetHandler(Handler):
    """``/moto-api/reset``: removes all queues."""

    requires = {"POST": guard.OPEN}

    @declare()
    async def post(self) -> None:
        for queue in await self.services.core.queue_all():
            await self.services.core.queue_remove(queue)
        self.answer(b"{}", TEXT)


class OtherServicesHandler(Handler):
    """``/``: the operations of STS and SNS."""

    requires = {"POST": guard.OPEN}

    @declare()
    async def post(self) -> None:
        fields = {name: values[-1].decode() for name, values in self.request.arguments.items()}
        action, topic = fields["Action"], fields.get("TopicArn", "")
        result = ""
        if action == "GetCallerIdentity":
            result = f"<Account>{ACCOUNT}</Account>"
        elif action == "CreateTopic":
            result = f"<TopicArn>arn:aws:sns:us-east-1:{ACCOUNT}:{fields['Name']}</TopicArn>"
        elif action == "Subscribe":
            _SUBSCRIBERS.setdefault(topic, []).append(fields["Endpoint"].rpartition(":")[2])
            result = f"<SubscriptionArn>{topic}:{len(_SUBSCRIBERS[topic])}</SubscriptionArn>"
        elif action == "Publish":
            for queue in _SUBSCRIBERS.get(topic, []):
                await self.services.core.sqs_send(queue, [SqsEntry(fields["Message"].encode(), {"id": "published"})])
            result = "<MessageId>published</MessageId>"
        self.answer(
            f"<{action}Response><{action}Result>{result}</{action}Result></{action}Response>".encode(), "text/xml"
        )


if __name__ == "__main__":
    from twisted.scripts.twistd import run

    names.ACCOUNT = ACCOUNT
    ROUTES[:0] = [("/moto-api/reset", ResetHandler), ("/", OtherServicesHandler)]
    sys.argv[0] = "twistd"
    run()
