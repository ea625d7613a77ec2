"""``/queue``: JSON commands; ``/xmlrpc``: adding and taking by XML-RPC."""

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
from restmq.handlers.parameters import JSONP_CALLBACK
from restmq.http.response import JSON
from restmq.model import check_queue_name
from restmq.schema.answers import ref
from restmq.schema.fields import JSON_TEXT

_BODY = Parameter("body", JSON_TEXT, "the command, a JSON object.")
_MSG = Parameter("msg", JSON_TEXT, "another name for body.")
_XMLRPC_FAULT = 1
_XML_ELEMENTS = {"methodCall", "methodName", "params", "param", "value", "string", "base64"}
#: A call of ``set`` has nine.
_XML_ELEMENTS_MAX = 50


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


class CommandHandler(Handler):
    """Runs a JSON command, which is the body or the form field ``body`` or ``msg``."""

    requires = {"GET": OPEN, "POST": BY_COMMAND}

    @declare(answers={200: answers_page("The page.")})
    async def get(self) -> None:
        """A page to try commands."""
        self.answer_page("commands.html", commands=sorted(dispatch.COMMANDS))

    head = get

    @declare(**_takes("Command"))
    async def post(self) -> None:
        """Runs a JSON command."""
        given = self.parameters["msg"] if self.parameters["body"] is None else self.parameters["body"]
        text = (self.request.body if self.request.media_type == JSON else given) or b""
        self.answer_json(await dispatch.run(self.command_context(), dispatch.parse(text)))


class QueueCommandHandler(CommandHandler):
    """The same for one queue."""

    @declare(**_takes("CommandAtQueue"))
    async def post(self) -> None:
        """Runs a JSON command, for this queue unless it names another."""
        await super().post()


class XmlRpcHandler(Handler):
    """XML-RPC methods ``get(queue)`` and ``set(queue, value)``."""

    requires = {"POST": BY_COMMAND}

    @declare(
        bodies=(Body("text/xml", {"type": "string"}, "An XML-RPC call."),),
        answers={200: Answer("The method's result, or a fault.", {"text/xml": {"type": "string"}})},
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
        core, guard = self.services.core, self.services.guard
        arguments, method = _read_call(self.request.body)
        if method == "get" and len(arguments) == 1:
            queue = check_queue_name(arguments[0])
            await guard.check(self.credentials, CONSUME, queue)
            for message in await self.services.polls.take(queue, TakeRequest(), self.request.connection.presence):
                return {"key": message.key, "value": _xml_value(message.value), "count": message.count}
            return None
        if method == "set" and len(arguments) == 2:
            queue, value = check_queue_name(arguments[0]), arguments[1]
            await guard.check(self.credentials, PRODUCE, queue)
            return await core.queue_add(queue, value if isinstance(value, bytes) else value.encode())
        raise InvalidInput("unknown method or wrong number of arguments; use get(queue) or set(queue, value).")


def _read_call(body: bytes) -> tuple[tuple[Any, ...], str | None]:
    """Reads an XML-RPC call: its arguments, each str or bytes, and its method. Raises InvalidInput.

    It stops at the first element that no method takes, so only text can be large.
    """
    unmarshaller = xmlrpc.client.Unmarshaller(use_builtin_types=True)
    unmarshaller.xml(None, None)  # type: ignore[arg-type]  # as xmlrpc.client does: expat gives it text
    numbers = count(1)

    def start(element: str, attributes: dict[str, str]) -> None:
        if element not in _XML_ELEMENTS:
            raise InvalidInput(f"invalid element <{element[:40]}>; send strings and base64.")
        if next(numbers) > _XML_ELEMENTS_MAX:
            raise InvalidInput(f"the call has more than {_XML_ELEMENTS_MAX} elements; send one message per call.")
        unmarshaller.start(element, attributes)

    def refuse_doctype(*_declared: Any) -> None:
        raise InvalidInput("the XML has a DOCTYPE; omit it.")  # it could define entities, which expand

    parser = expat.ParserCreate()
    parser.buffer_text = True  # else expat makes a call for each line and each reference such as &amp;
    parser.StartDoctypeDeclHandler = refuse_doctype
    parser.StartElementHandler = start
    parser.EndElementHandler = unmarshaller.end
    parser.CharacterDataHandler = unmarshaller.data
    try:
        parser.Parse(body, True)
        return unmarshaller.close(), unmarshaller.getmethodname()
    except (expat.ExpatError, ValueError, TypeError, xmlrpc.client.Error, LookupError):
        raise InvalidInput("the body is not a valid XML-RPC call.") from None


def _xml_value(value: bytes) -> str | bytes:
    """A string if XML can represent it (XML 1.0, 2.2), else bytes, which XML-RPC sends as base64."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value
    safe = all(c in "\t\n" or (" " <= c < "\ufffe" and not "\ud800" <= c < "\ue000") or c > "\uffff" for c in text)
    return text if safe else value
