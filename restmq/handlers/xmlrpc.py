"""``/xmlrpc``: adding and taking messages by XML-RPC."""

from __future__ import annotations

import base64
import re
import xmlrpc.client
from collections.abc import Iterator
from typing import Any
from xml.parsers import expat

from restmq.auth.guard import BY_COMMAND, CONSUME, PRODUCE
from restmq.delivery.lines import TakeRequest
from restmq.dispatch import check_size
from restmq.errors import InvalidInput
from restmq.handlers.base import Handler
from restmq.handlers.declare import Answer, Body, declare
from restmq.model import check_queue_name

_XMLRPC_FAULT = 1
#: Elements whose text is the message.
_XML_TEXTS = ("int", "i4", "i8", "double", "boolean")
_XML_ELEMENTS = {"methodCall", "methodName", "params", "param", "value", "string", "base64", *_XML_TEXTS}
_XML_PIECE_BYTES = 16 * 1024
#: Characters of a string, or bytes of base64, that are rendered in one turn: whole lines of base64.
_VALUE_PIECE = 57 * 4096
#: A call of ``set`` has nine.
_XML_ELEMENTS_MAX = 50
#: A character that XML can't represent, or that parsers change.
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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
            begin, *rest = await self._call()
        except InvalidInput as error:
            begin, rest = _document(xmlrpc.client.Fault(_XMLRPC_FAULT, str(error))), []
        self.answer(begin, "text/xml", rest=rest)

    async def _call(self) -> list[bytes]:
        """Returns the answer in pieces."""
        core, guard, turns = self.services.core, self.services.guard, self.services.turns
        check_size(self.request.body, self.services.command_bytes_max)
        call = _Call()
        await turns.run(call.read(self.request.body))
        arguments, method = call.arguments, call.method
        if method == "get" and len(arguments) == 1:
            queue = check_queue_name(arguments[0])
            await guard.check(self.credentials, CONSUME, queue)
            presence = self.request.connection.presence
            for message in await self.services.polls.take(queue, TakeRequest(), presence):
                answer = {"value": "", "key": message.key, "count": message.count}
                begin, _, end = _document((answer,)).partition(b"<string></string>")
                pieces: list[bytes] = []
                await turns.run(_render_value(message.value, pieces))
                if not self.services.polls.unless_left(queue, [message], presence):
                    break
                return [begin, *pieces, end]
            return [_document((None,))]
        if method == "set" and len(arguments) == 2:
            queue, value = check_queue_name(arguments[0]), arguments[1]
            await guard.check(self.credentials, PRODUCE, queue)
            return [_document((await core.queue_add(queue, value if isinstance(value, bytes) else value.encode()),))]
        raise InvalidInput("unknown method or wrong number of arguments; use get(queue) or set(queue, value).")


class _Unmarshaller(xmlrpc.client.Unmarshaller):
    """Reads numbers and booleans as their text: messages are bytes, and ``1.10`` must not become ``1.1``."""

    dispatch = {
        **xmlrpc.client.Unmarshaller.dispatch,
        **dict.fromkeys(_XML_TEXTS, xmlrpc.client.Unmarshaller.dispatch["string"]),
    }


class _Call:
    """An XML-RPC call: its arguments, each str or bytes, and its method.

    Reading stops at the first element that no method takes, and at a tag or comment that is too long, so only text can
    be large: expat would build all attributes of a tag before it reports the tag.
    """

    arguments: tuple[Any, ...]
    method: str | None

    def __init__(self) -> None:
        self._unmarshaller = _Unmarshaller(use_builtin_types=True)
        self._unmarshaller.xml(None, None)  # type: ignore[arg-type]  # as xmlrpc.client does: expat gives it text
        self._elements = 0
        self._parser = parser = expat.ParserCreate()
        parser.buffer_text = True  # otherwise expat makes a call for each line and each reference such as &amp;
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._unmarshaller.end
        parser.CharacterDataHandler = self._unmarshaller.data

    def read(self, body: bytes) -> Iterator[None]:
        """Reads the body in steps of about a millisecond. Raises InvalidInput."""
        try:
            for begin in range(0, len(body), _XML_PIECE_BYTES):
                piece = body[begin : begin + _XML_PIECE_BYTES]
                self._parser.Parse(piece, False)
                if begin + len(piece) - self._parser.CurrentByteIndex > _XML_PIECE_BYTES:
                    raise InvalidInput(
                        f"the XML has a tag or comment of more than {_XML_PIECE_BYTES} bytes; shorten it."
                    )
                if begin:
                    yield
            self._parser.Parse(b"", True)
            self.arguments, self.method = self._unmarshaller.close(), self._unmarshaller.getmethodname()
        except (expat.ExpatError, ValueError, TypeError, xmlrpc.client.Error, LookupError):
            raise InvalidInput("the body is not a valid XML-RPC call.") from None
        finally:
            del self._parser  # it refers to this object: a reference cycle

    def _start(self, element: str, attributes: dict[str, str]) -> None:
        if element not in _XML_ELEMENTS:
            raise InvalidInput(f"invalid element <{element[:40]}>; send strings, numbers, booleans or base64.")
        self._elements += 1
        if self._elements > _XML_ELEMENTS_MAX:
            raise InvalidInput(f"the call has more than {_XML_ELEMENTS_MAX} elements; send one message per call.")
        self._unmarshaller.start(element, attributes)

    def _refuse_doctype(self, *_declared: Any) -> None:
        raise InvalidInput("the XML has a DOCTYPE; omit it.")  # it could define entities, which expand


def _document(result: tuple[Any] | xmlrpc.client.Fault) -> bytes:
    return xmlrpc.client.dumps(result, methodresponse=True, allow_none=True).encode()


def _render_value(value: bytes, pieces: list[bytes]) -> Iterator[None]:
    """Appends a value to an answer, in steps: as a string if XML can represent it (XML 1.0, 2.2), else as base64."""
    try:
        text = value.decode()
        for begin in range(0, len(text), _VALUE_PIECE):
            if begin:
                yield
            if _NOT_XML.search(text, begin, begin + _VALUE_PIECE):
                text = ""
                break
    except UnicodeDecodeError:
        text = ""
    name = b"string" if text or not value else b"base64"
    pieces.append(b"<%b>" % name)
    for begin in range(0, len(text or value), _VALUE_PIECE):
        if begin:
            yield
        if text:
            pieces.append(xmlrpc.client.escape(text[begin : begin + _VALUE_PIECE]).encode())
        else:
            pieces.append(base64.encodebytes(value[begin : begin + _VALUE_PIECE]))
    pieces.append(b"</%b>" % name)
