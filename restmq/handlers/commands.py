"""``/queue``: JSON commands; ``/xmlrpc``: the same for XML-RPC clients."""

from __future__ import annotations

import xmlrpc.client
from itertools import count
from typing import Any
from xml.parsers import expat

from restmq import dispatch
from restmq.auth.guard import BY_COMMAND, CONSUME, OPEN, PRODUCE
from restmq.delivery.longpoll import TakeRequest
from restmq.errors import InvalidInput
from restmq.handlers.base import Handler
from restmq.handlers.declare import Answer, Body, Parameter, answers_json, answers_page, declare
from restmq.handlers.parameters import CALLBACK
from restmq.http.response import JSON
from restmq.model import check_queue_name
from restmq.schema.answers import ref
from restmq.schema.fields import JSON_TEXT

_BODY = Parameter("body", JSON_TEXT, "the command, as JSON text.")
_MSG = Parameter("msg", JSON_TEXT, "another name for body.")
_XMLRPC_FAULT = 1
_XML_ELEMENTS = {"methodCall", "methodName", "params", "param", "value", "string", "base64"}
#: ``set`` has nine.
_XML_ELEMENTS_MAX = 50


def _takes(command: str) -> dict[str, Any]:
    """What is declared of a method that runs commands of this shape."""
    return {
        "query": (CALLBACK,),
        "form": (_BODY, _MSG, CALLBACK),
        "any_of": ("body", "msg"),
        "bodies": (Body(JSON, ref(command), "A command."),),
        "answers": {200: answers_json("What the command answers.", ref("CommandAnswer"))},
        "errors": (404, 409, 410),
    }


class CommandHandler(Handler):
    """Runs a JSON command: the body, or the form field ``body`` or ``msg``."""

    requires = {"GET": OPEN, "POST": BY_COMMAND}

    @declare(answers={200: answers_page("The page.")})
    async def get(self) -> None:
        """A page on which commands can be tried."""
        self.answer_page("commands.html", commands=sorted(dispatch.COMMANDS))

    head = get

    @declare(**_takes("Command"))
    async def post(self) -> None:
        """Runs a JSON command."""
        given = self.given["msg"] if self.given["body"] is None else self.given["body"]
        text = (self.request.body if self.request.media_type == JSON else given) or b""
        self.answer_json(await dispatch.run(self.client(), dispatch.parse(text), text))


class QueueCommandHandler(CommandHandler):
    """The same at a queue."""

    @declare(**_takes("CommandAtQueue"))
    async def post(self) -> None:
        """Runs a JSON command; one that names no queue means this one."""
        await super().post()


class XmlRpcHandler(Handler):
    """XML-RPC methods ``get(queue)`` and ``set(queue, value)``."""

    requires = {"POST": BY_COMMAND}

    @declare(
        bodies=(Body("text/xml", {"type": "string"}, "An XML-RPC call."),),
        answers={200: Answer("What the method returns, or a fault.", {"text/xml": {"type": "string"}})},
    )
    async def post(self) -> None:
        """XML-RPC methods ``get(queue)``, which takes the next message, and ``set(queue, value)``, which adds one."""
        try:
            result: Any = (await self._call(),)
        except InvalidInput as error:
            result = xmlrpc.client.Fault(_XMLRPC_FAULT, str(error))
        answer = xmlrpc.client.dumps(result, methodresponse=True, allow_none=True)
        self.answer(answer.encode(), "text/xml")

    async def _call(self) -> Any:
        core, guard = self.application.core, self.application.guard
        arguments, method = _read_call(self.request.body)
        if method == "get" and len(arguments) == 1:
            queue = check_queue_name(arguments[0])
            await guard.check(self.credentials, CONSUME, queue)
            for message in await self.application.polls.take(queue, TakeRequest(), self.request.connection.presence):
                return {"key": message.key, "value": _xml_value(message.value), "count": message.count}
            return None
        if method == "set" and len(arguments) == 2:
            queue, value = check_queue_name(arguments[0]), arguments[1]
            await guard.check(self.credentials, PRODUCE, queue)
            return await core.queue_add(queue, value if isinstance(value, bytes) else value.encode())
        raise InvalidInput("there are the methods get(queue) and set(queue, value).")


def _read_call(body: bytes) -> tuple[tuple[Any, ...], str | None]:
    """The arguments, each str or bytes, and the method's name of an XML-RPC call. Raises InvalidInput.

    It stops at the first element that no method here takes, so only text can be large.
    """
    unmarshaller = xmlrpc.client.Unmarshaller(use_builtin_types=True)
    unmarshaller.xml(None, None)  # type: ignore[arg-type]  # as xmlrpc.client does: what comes is text already
    numbers = count(1)

    def start(element: str, attributes: dict[str, str]) -> None:
        if element not in _XML_ELEMENTS:
            raise InvalidInput(f"a call has strings and base64 only, no <{element[:40]}>.")
        if next(numbers) > _XML_ELEMENTS_MAX:
            raise InvalidInput(f"the call has more than {_XML_ELEMENTS_MAX} elements.")
        unmarshaller.start(element, attributes)

    def refuse_doctype(*_declared: Any) -> None:
        raise InvalidInput("an XML-RPC request must not have a DOCTYPE.")  # it could define entities, which expand

    parser = expat.ParserCreate()
    parser.buffer_text = True  # else each line, and each reference such as &amp;, is a call
    parser.StartDoctypeDeclHandler = refuse_doctype
    parser.StartElementHandler = start
    parser.EndElementHandler = unmarshaller.end
    parser.CharacterDataHandler = unmarshaller.data
    try:
        parser.Parse(body, True)
        return unmarshaller.close(), unmarshaller.getmethodname()
    except (expat.ExpatError, ValueError, TypeError, xmlrpc.client.Error, LookupError):
        raise InvalidInput("the body is not an XML-RPC call.") from None


def _xml_value(value: bytes) -> str | bytes:
    """A string where XML can carry it, else bytes, which XML-RPC sends as base64 (XML 1.0, 2.2)."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value
    safe = all(c in "\t\n" or (" " <= c < "\ufffe" and not "\ud800" <= c < "\ue000") or c > "\uffff" for c in text)
    return text if safe else value
