"""Declarations of the parameters, bodies and answers of a route's methods.

A declaration decorates the handler's method::

    @declare(query=(COUNT, JSONP_CALLBACK), answers={200: answers_json("The newest.", MESSAGE)}, errors=(404,))
    async def get(self) -> None:
        '''Peeks at the newest messages.'''

Before the method runs, the declared parameters are read, checked and put into ``self.parameters``. Undeclared
parameters are ignored. ``handlers/openapi.py`` generates the API's description from declarations and docstrings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from restmq.errors import InvalidInput
from restmq.http.request import Request
from restmq.http.response import HTML, JSON, TEXT
from restmq.schema.fields import Kind, Schema

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(slots=True, frozen=True)
class Parameter:
    """A parameter of the query, a form field, or a header.

    Attributes:
        name: of a header, in its usual spelling.
        text: a noun phrase that can follow the words "send 'name': ".
    """

    name: str
    kind: Kind
    text: str
    required: bool = False


@dataclass(slots=True, frozen=True)
class Body:
    """A kind of request body besides forms."""

    media_type: str
    schema: Schema
    text: str


@dataclass(slots=True, frozen=True)
class Answer:
    """An answer: its meaning, its body's schema by content type, and the meaning of its own headers."""

    text: str
    content: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def answers_json(text: str, schema: Schema, **more: Schema) -> Answer:
    """A JSON answer. A declared parameter ``callback`` adds JSONP."""
    return Answer(text, {JSON: schema, **more})


def answers_line(text: str) -> Answer:
    """A line of text."""
    return Answer(text, {TEXT: {"type": "string"}})


def answers_page(text: str) -> Answer:
    """A page for people."""
    return Answer(text, {HTML: {"type": "string"}})


@dataclass(slots=True, kw_only=True)
class Operation:
    """The parameters, bodies and answers of one method of one route.

    Attributes:
        query, form, headers: the parameters. A form's fields may also be sent in the query.
        any_of: names of form fields, of which a form must have at least one.
        bodies: accepted kinds of body besides forms.
        answers: the successful answers by status.
        errors: statuses of this operation's own errors; the statuses that any request can get are implied.
        streams: whether the answer is endless.
        declared: False for a page, which is described by its docstring alone.
    """

    query: tuple[Parameter, ...] = ()
    form: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    any_of: tuple[str, ...] = ()
    bodies: tuple[Body, ...] = ()
    answers: Mapping[int, Answer] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    streams: bool = False
    declared: bool = True
    _absent: dict[str, Any] = field(init=False)
    _kinds: dict[str, Kind] = field(init=False)
    _required: tuple[Parameter, ...] = field(init=False)
    _in_header: tuple[tuple[str, str, Kind], ...] = field(init=False)
    _may_be_bare: bool = field(init=False)

    def __post_init__(self) -> None:
        parameters = (*self.query, *self.form, *self.headers)
        self._absent = dict.fromkeys(parameter.name for parameter in parameters)
        self._kinds = {parameter.name: parameter.kind for parameter in (*self.query, *self.form)}
        self._required = tuple(parameter for parameter in parameters if parameter.required)
        self._in_header = tuple((header.name, header.name.lower(), header.kind) for header in self.headers)
        self._may_be_bare = not (self.headers or self._required or self.any_of)

    def read(self, request: Request) -> Mapping[str, Any]:
        """The declared parameters by name; None for a missing one. Raises InvalidInput."""
        if self._may_be_bare and not request.query and not request.body:
            return self._absent
        given = self._absent.copy()
        if self._kinds:  # else a form need not be read
            for name, values in request.arguments.items():
                kind = self._kinds.get(name)
                if kind is not None:
                    for value in values:
                        given[name] = kind.read(name, value)
        for name, lower, kind in self._in_header:
            sent = request.headers.get(lower)
            if sent is not None:
                given[name] = kind(name, as_utf8(sent))
        for parameter in self._required:
            if given[parameter.name] is None:
                raise InvalidInput(f"send {parameter.name!r}: {parameter.text}")
        if self.any_of:
            self._check_any(given, request)
        return given

    def _check_any(self, given: Mapping[str, Any], request: Request) -> None:
        for name in self.any_of:
            if given[name] is not None:
                return
        if not request.body and not request.is_form:
            other = "one that is not, or " if self.bodies else ""
            raise InvalidInput(f"the body is empty; send {other}a form with a field of {', '.join(self.any_of)}.")
        if not self._has_other_body(request):
            raise InvalidInput(f"the form has none of the fields {', '.join(self.any_of)}; send one.")

    def _has_other_body(self, request: Request) -> bool:
        media_types = [body.media_type for body in self.bodies]
        if not request.body or request.is_form or request.media_type == "multipart/form-data":
            return False
        return "*/*" in media_types or request.media_type in media_types


#: A page, or a file that a page needs. It has no parameters.
UNDECLARED = Operation(answers={200: Answer("The page or file.", {"*/*": {}})}, declared=False)


def declare(**declared: Any) -> Callable[[Method], Method]:
    """Declares a handler's method; takes the arguments of Operation."""

    def remember(method: Method) -> Method:
        method.operation = Operation(**declared)  # type: ignore[attr-defined]
        return method

    return remember


def as_utf8(header: str) -> str:
    """A header's value, which was decoded as Latin-1, decoded as UTF-8 if it is valid UTF-8."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header
