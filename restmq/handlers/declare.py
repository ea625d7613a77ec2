"""Declarations of the parameters, bodies and answers of a route's methods.

A declaration decorates the handler's method::

    @declare(query=(COUNT, JSONP_CALLBACK), answers={200: answers_json("The newest.", MESSAGE)}, errors=(404,))
    async def get(self) -> None:
        '''Peeks at the newest messages.'''

Before the method runs, the declared parameters are read, checked and put into ``self.parameters``. Undeclared
parameters are ignored. ``handlers/openapi.py`` generates the API's description from declarations and docstrings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from restmq.errors import InvalidInput
from restmq.handlers.error_status import UnsupportedBody
from restmq.http.request import Request
from restmq.http.response import HTML, JSON, TEXT
from restmq.schema.fields import Kind, QueueNames, Schema
from restmq.schema.json_input import ObjectReader, field_value
from restmq.schema.metadata import as_utf8
from restmq.schema.names import check_names

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
    is_endless: bool = False


def answers_json(text: str, schema: Schema, **more: Schema) -> Answer:
    """A JSON answer. A declared parameter ``callback`` adds JSONP."""
    return Answer(text, {JSON: schema, **more})


def answers_line(text: str) -> Answer:
    """A line of text."""
    return Answer(text, {TEXT: {"type": "string"}})


def answers_page(text: str) -> Answer:
    """A page for people."""
    return Answer(text, {HTML: {"type": "string"}})


def answers_stream(text: str, *content_types: str) -> Answer:
    """An answer without an end."""
    return Answer(text, {content_type: {"type": "string"} for content_type in content_types}, is_endless=True)


@dataclass(kw_only=True)
class Operation:
    """The parameters, bodies and answers of one method of one route.

    Attributes:
        query, form, headers: the parameters. A form's fields may also be sent in the query.
        any_of: names of form fields, of which a form must have at least one.
        bodies: accepted kinds of body besides forms.
        answers: the successful answers by status.
        errors: statuses of this operation's own errors; the statuses that any request can get are implied.
        strict: whether an unknown parameter is rejected, whatever its name; else see ``schema.names``.
        declared: False for a page, which is described by its docstring alone.
        known: the names of all parameters of the query and the form.
    """

    query: tuple[Parameter, ...] = ()
    form: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    any_of: tuple[str, ...] = ()
    bodies: tuple[Body, ...] = ()
    answers: Mapping[int, Answer] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    strict: bool = False
    declared: bool = True

    def __post_init__(self) -> None:
        parameters = (*self.query, *self.form, *self.headers)
        self._absent: dict[str, Any] = dict.fromkeys(parameter.name for parameter in parameters)
        self._kinds: dict[str, Kind] = {parameter.name: parameter.kind for parameter in (*self.query, *self.form)}
        self.known = frozenset((*self._kinds, "authkey"))
        self._required = tuple(parameter for parameter in parameters if parameter.required)
        self._in_header = tuple((header.name, header.name.lower(), header.kind) for header in self.headers)
        self._may_be_bare = not (self.headers or self._required or self.any_of)
        self._media_types = frozenset(body.media_type for body in self.bodies)
        self._object = ObjectReader(self._kinds)

    @property
    def takes_json(self) -> bool:
        """Whether a JSON object may have the parameters, in place of a form."""
        return bool(self.form) and not self._media_types & {JSON, "*/*"}

    def takes_body(self, request: Request) -> bool:
        """Whether the body is of a kind besides forms that the operation takes as it is."""
        types = self._media_types
        return not request.is_form and ("*/*" in types or request.media_type in types)

    def read(self, request: Request) -> Mapping[str, Any]:
        """The declared parameters by name; None for a missing one.

        Raises:
            InvalidInput: a parameter is missing or invalid, or its name is unknown.
            UnsupportedBody: the body is of no kind that the operation takes.
        """
        if self._may_be_bare and not request.query and not request.body:
            return self._absent
        parameters = self._absent.copy()
        try:
            if self._kinds:
                self._read_fields(request, parameters)
            for name, lower, kind in self._in_header:
                sent = request.headers.get(lower)
                if sent is not None:
                    parameters[name] = kind(name, as_utf8(sent))
            for parameter in self._required:
                if parameters[parameter.name] is None:
                    raise InvalidInput(f"send {parameter.name!r}: {parameter.text}")
            if self.any_of:
                self._check_any(parameters, request)
        except InvalidInput as problem:
            if "*/*" not in self._media_types and request.is_form and request.body.startswith((b"{", b"[")):
                raise InvalidInput(f"{problem} JSON needs the header 'Content-Type: application/json'.") from None
            raise
        return parameters

    def _read_fields(self, request: Request, parameters: dict[str, Any]) -> None:
        unknown = []
        for name, values in request.arguments.items():
            kind = self._kinds.get(name)
            if kind is None:
                unknown.append(name)
            elif isinstance(kind, QueueNames):
                parameters[name] = kind.read_all(name, values)
            else:
                for value in values:
                    parameters[name] = kind.read(name, value)
        if request.body and request.method != "GET" and not (request.is_form or self.takes_body(request)):
            unknown += self._read_object(request, parameters)
        if unknown:
            check_names(set(unknown) - self.known, self.known, self.strict)

    def _read_object(self, request: Request, parameters: dict[str, Any]) -> Iterable[str]:
        """Reads the parameters in a JSON object, and returns the unknown names in it."""
        if request.media_type != JSON:
            raise UnsupportedBody(
                "the body has an unknown Content-Type; send a form, or a JSON object as application/json."
            )
        members = self._object.read(request.body, "the body")
        for name, raw in members.items():
            kind = self._kinds.get(name)
            if kind is not None:
                parameters[name] = field_value(kind, name, raw)
        return members.keys() - self._kinds.keys()

    def _check_any(self, parameters: Mapping[str, Any], request: Request) -> None:
        for name in self.any_of:
            if parameters[name] is not None:
                return
        fields = ", ".join(self.any_of)
        if not request.body and not request.is_form:
            other = "one that is not, or " if self.bodies else ""
            raise InvalidInput(f"the body is empty; send {other}a form with a field of {fields}.")
        if not self.takes_body(request):
            as_it_is = " To send the body as it is, use curl --data-binary with -H 'Content-Type: text/plain'."
            hint = as_it_is if request.is_form and "*/*" in self._media_types else ""
            raise InvalidInput(f"the body has none of the fields {fields}; send one.{hint}")


#: A page, or a file that a page needs. It has no parameters.
UNDECLARED = Operation(answers={200: Answer("The page or file.", {"*/*": {}})}, declared=False)


def declare(**declared: Any) -> Callable[[Method], Method]:
    """Declares a handler's method; takes the arguments of Operation."""

    def remember(method: Method) -> Method:
        method.operation = Operation(**declared)  # type: ignore[attr-defined]
        return method

    return remember
