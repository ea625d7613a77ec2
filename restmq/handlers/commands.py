"""``/queue``: JSON commands."""

from __future__ import annotations

from typing import Any

from restmq import dispatch
from restmq.auth.guard import BY_COMMAND, OPEN, Access
from restmq.commands import COMMANDS, CommandContext
from restmq.handlers.base import Handler
from restmq.handlers.declare import Body, Parameter, answers_json, answers_page, declare
from restmq.handlers.parameters import JSONP_CALLBACK
from restmq.http.response import JSON
from restmq.schema.answers import ref
from restmq.schema.fields import JSON_TEXT

_BODY = Parameter("body", JSON_TEXT, "the command, a JSON object.")
_MSG = Parameter("msg", JSON_TEXT, "another name for body.")


def _takes(command: str) -> dict[str, Any]:
    """The declaration of a method that runs commands of this shape."""
    return {
        "query": (JSONP_CALLBACK,),
        "form": (_BODY, _MSG, JSONP_CALLBACK),
        "any_of": ("body", "msg"),
        "bodies": (Body(JSON, ref(command), "A command."),),
        "answers": {200: answers_json("The command's answer.", ref("CommandAnswer"))},
        "errors": (404, 409, 410),
    }


def command_context(handler: Handler) -> CommandContext:
    """The context in which the JSON commands of this handler's client run."""
    services = handler.services

    async def check(access: Access, queue: str | None) -> None:
        if not handler.is_open(access):
            await services.guard.check(handler.credentials, access, queue)

    return CommandContext(
        core=services.core,
        polls=services.polls,
        check=check,
        queues=lambda: services.visible_queues(handler.credentials),
        kept_headers=services.kept_headers,
        stats=services.queue_stats,
        presence=handler.request.connection.presence,
        default_queue=handler.queue,
        command_bytes_max=services.command_bytes_max,
        next_turn=services.turns.next,
    )


class CommandHandler(Handler):
    """Runs a JSON command, which is the body or the form field ``body`` or ``msg``."""

    requires = {"GET": OPEN, "POST": BY_COMMAND}

    @declare(answers={200: answers_page("The page.")})
    async def get(self) -> None:
        """A page to try commands."""
        self.answer_page("commands.html", commands=sorted(COMMANDS))

    @declare(**_takes("Command"))
    async def post(self) -> None:
        """Runs a JSON command."""
        given = self.parameters["msg"] if self.parameters["body"] is None else self.parameters["body"]
        text = (self.request.body if self.request.media_type == JSON else given) or b""
        context = command_context(self)
        answer = await dispatch.run(context, await dispatch.read(context, text))
        await self.answer_long_json(answer, taken=context.taken)


class QueueCommandHandler(CommandHandler):
    """The same for one queue."""

    @declare(**_takes("CommandAtQueue"))
    async def post(self) -> None:
        """Runs a JSON command, for this queue unless it names another."""
        await super().post()
