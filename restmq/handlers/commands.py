"""``/queue``: JSON commands; ``/xmlrpc``: the same for XML-RPC clients."""

from __future__ import annotations

import xmlrpc.client
from typing import Any
from xml.parsers.expat import ExpatError

from restmq import access, dispatch
from restmq.errors import InvalidInput
from restmq.handlers.base import Handler
from restmq.model import check_queue_name

_XMLRPC_FAULT = 1


class CommandHandler(Handler):
    """Runs a JSON command: the body, or the form field ``body`` or ``msg``."""

    access = {"GET": access.OPEN, "POST": access.BY_COMMAND}

    async def get(self) -> None:
        self.answer_page("commands.html", commands=sorted(dispatch.COMMANDS))

    async def post(self) -> None:
        text = self.request.body if self.request.media_type == "application/json" else self.argument("body", "msg")
        if text is None:
            raise InvalidInput("send the command as an application/json body, or in the form field 'body'.")
        self.callback()
        self.answer_json(await dispatch.run(self.client(), dispatch.parse(text)))


class XmlRpcHandler(Handler):
    """XML-RPC methods ``get(queue)`` and ``set(queue, value)``."""

    access = {"POST": access.BY_COMMAND}

    async def post(self) -> None:
        try:
            result: Any = (await self._call(),)
        except InvalidInput as error:
            result = xmlrpc.client.Fault(_XMLRPC_FAULT, str(error))
        answer = xmlrpc.client.dumps(result, methodresponse=True, allow_none=True)
        self.answer(answer.encode(), "text/xml; charset=utf-8")

    async def _call(self) -> Any:
        core, guard = self.application.core, self.application.guard
        # expat expands entities; a document that defines its own is refused before it can be read.
        if b"<!DOCTYPE" in self.request.body or b"<!ENTITY" in self.request.body:
            raise InvalidInput("an XML-RPC request must not have a DOCTYPE.")
        try:
            arguments, method = xmlrpc.client.loads(self.request.body, use_builtin_types=True)
        except (ExpatError, ValueError, TypeError, xmlrpc.client.Error, LookupError):
            raise InvalidInput("the body is not an XML-RPC call.") from None
        if method == "get" and len(arguments) == 1:
            queue = check_queue_name(arguments[0])
            await guard.check(self.credentials, access.CONSUME, queue)
            message = await core.queue_getdel(queue)
            return {"key": message.key, "value": _xml_value(message.value), "count": message.count} if message else None
        if method == "set" and len(arguments) == 2:
            queue, value = check_queue_name(arguments[0]), arguments[1]
            await guard.check(self.credentials, access.PRODUCE, queue)
            return await core.queue_add(queue, value if isinstance(value, bytes) else str(value).encode())
        raise InvalidInput("there are the methods get(queue) and set(queue, value).")


def _xml_value(value: bytes) -> str | bytes:
    """A string where XML can carry it, else bytes, which XML-RPC sends as base64 (XML 1.0, 2.2)."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value
    safe = all(c in "\t\n" or (" " <= c < "\ufffe" and not "\ud800" <= c < "\ue000") or c > "\uffff" for c in text)
    return text if safe else value
