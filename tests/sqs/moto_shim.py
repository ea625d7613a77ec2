"""``twistd restmq`` with the two things that moto's tests ask of moto's own server, and that are no part of SQS.

Run it as a module, with the arguments of twistd.
"""

from __future__ import annotations

from restmq.auth import guard
from restmq.frontends.sqs import names
from restmq.handlers.base import Handler
from restmq.handlers.declare import declare
from restmq.http.response import TEXT
from restmq.web import ROUTES

_IDENTITY = (
    b"<GetCallerIdentityResponse><GetCallerIdentityResult><Account>123456789012</Account><Arn>arn:aws:sts::123456789012:"
    b"user/moto</Arn><UserId>moto</UserId></GetCallerIdentityResult></GetCallerIdentityResponse>"
)


class ResetHandler(Handler):
    """``/moto-api/reset``: removes all queues."""

    requires = {"POST": guard.OPEN}

    @declare()
    async def post(self) -> None:
        core = self.services.core
        for queue in await core.queue_all():
            await core.queue_remove(queue)
        self.answer(b"{}", TEXT)


class StsHandler(Handler):
    """``/``: the STS operation GetCallerIdentity."""

    requires = {"POST": guard.OPEN}

    @declare()
    async def post(self) -> None:
        self.answer(_IDENTITY, "text/xml")


if __name__ == "__main__":
    from twisted.scripts.twistd import run

    names.ACCOUNT = "123456789012"  # moto's own
    ROUTES[:0] = [("/moto-api/reset", ResetHandler), ("/", StsHandler)]
    run()
