"""The API's description (OpenAPI 3.1), generated from the declarations and docstrings of the handlers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable
from http.client import responses
from typing import Any

from restmq import __version__
from restmq.auth.guard import OPEN, Access
from restmq.commands import COMMANDS, Command
from restmq.handlers.base import Handler
from restmq.handlers.declare import Answer, Operation, Parameter, answers_json, answers_page, declare
from restmq.http.response import HTML, JAVASCRIPT, JSON
from restmq.schema.answers import QUEUE, SHAPES, any_of, ref
from restmq.schema.encoding import to_json
from restmq.schema.fields import MESSAGE_KEY, QUEUE_NAME, Exact, Kind, Schema
from restmq.schema.names import MEANINGFUL

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_IN_PATHS: dict[str, tuple[Kind, str]] = {
    "queue": (QUEUE_NAME, "The queue's name, percent-encoded."),
    "key": (MESSAGE_KEY, "The message's key, percent-encoded."),
    "file": (QUEUE_NAME, "The file's name."),
}

#: Statuses that any request may get.
_ANY = (400, 403, 408, 413, 414, 415, 417, 421, 431, 500, 503)
#: Further statuses of requests that need access.
_CHECKED = (401, 429)
_REFUSALS = {
    400: "The request is malformed; the error says how.",
    401: "A password or a token is missing or wrong.",
    403: "The address or the token does not have this right, or a page of another site makes the request.",
    404: "There is no such queue, message or page.",
    408: "The request took too long to arrive.",
    409: "The request conflicts with an earlier request or with the queue's policy.",
    410: "The receipt is not valid: the lease expired, the message was acked, or the receipt never existed.",
    413: "The body or a part of it is too long.",
    414: "The URL is too long.",
    415: "The body has a content coding or a type that is not accepted here.",
    417: "The expectation is unknown.",
    421: "The server does not have this host name.",
    426: "This path speaks WebSocket.",
    429: "The queue is full, or there were too many wrong passwords; retry after Retry-After.",
    431: "The header section is too long.",
    500: "The server failed; its log has the reason.",
    503: "Redis does not answer, or there are too many clients; retry after Retry-After.",
}
_RETRY_AFTER = {"schema": {"type": "integer"}, "description": "Seconds after which the request may succeed."}
_SECURITY = {
    "basic": {"type": "http", "scheme": "basic", "description": "A username and password of acl.conf."},
    "token": {"type": "http", "scheme": "bearer", "description": "A token."},
    "authkey": {"type": "apiKey", "in": "query", "name": "authkey", "description": "The same token in the query."},
}


def describe(routes: Iterable[tuple[str, type[Handler]]]) -> dict[str, Any]:
    """The OpenAPI 3.1.0 document of these routes: pairs of a path's template and its handler."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "RestMQ",
            "version": __version__,
            "summary": "A message queue that you use over plain HTTP.",
            "description": (
                "Form fields may also be sent in the query. If a name is repeated, its last value counts. A path that "
                "does not end in a name may end in a slash. A JSON object may replace a form, also with DELETE. "
                "Errors are JSON, or a page if the client accepts text/html."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "."}],  # relative to the document: a proxy may have removed a prefix
        "paths": {template: _path(template, handler) for template, handler in routes if template.startswith("/")},
        "components": {
            "schemas": {
                **SHAPES,
                "Command": _commands(at_queue=False),
                "CommandAtQueue": _commands(at_queue=True),
                "CommandAnswer": any_of(*(command.answer for command in COMMANDS.values())),
            },
            "responses": {str(status): _refusal(status, text) for status, text in _REFUSALS.items()},
            "securitySchemes": _SECURITY,
        },
    }


def _path(template: str, handler: type[Handler]) -> dict[str, Any]:
    path: dict[str, Any] = {
        method.lower(): _operation(template, handler, method, handler.operations[method]) for method in handler.requires
    }
    if "GET" in handler.requires:
        path["head"] = _head(template, handler)
    path["options"] = {
        "operationId": _identifier("OPTIONS", template),
        "summary": "Lists the methods of this path",
        "security": [],
        "responses": {
            "204": {
                "description": "The methods are in the header Allow.",
                "headers": {"Allow": {"schema": {"type": "string"}}},
            },
            **_refusals(_ANY),
        },
    }
    parameters = [
        _parameter(Parameter(name, *_IN_PATHS[name], required=True), "path")
        for name in re.findall(r"\{(\w+)\}", template)
    ]
    return {**({"parameters": parameters} if parameters else {}), **path}


def _head(template: str, handler: type[Handler]) -> dict[str, Any]:
    """A HEAD request promises only the status: it does not run the GET, which may take a message."""
    answers = handler.operations["GET"].answers
    elsewhere = {str(status): {"description": answers[status].text} for status in answers if 300 <= status < 400}
    return {
        "operationId": _identifier("HEAD", template),
        "summary": "Checks that GET is allowed; takes nothing",
        "security": _security(handler.requires["GET"]),
        "responses": {
            "200": {"description": "It is allowed."},
            **elsewhere,
            **_refusals((*_statuses(handler.requires["GET"]), 404)),
        },
    }


def _operation(template: str, handler: type[Handler], method: str, operation: Operation) -> dict[str, Any]:
    text = _prose(getattr(handler, method.lower()).__doc__ or handler.__doc__ or "")
    access = handler.requires[method]
    described: dict[str, Any] = {
        "operationId": _identifier(method, template),
        "summary": re.split(r"[.:;](?:\s|$)", text)[0].replace("`", ""),  # no Markdown there
        "description": text,
        "tags": [template.split("/")[1].partition("{")[0] or "dashboard"],
        "security": _security(access),
    }
    parameters = [
        *(_parameter(parameter, "query") for parameter in operation.query),
        *(_parameter(parameter, "header") for parameter in operation.headers),
    ]
    if parameters:
        described["parameters"] = parameters
    if operation.form or operation.bodies:
        described["requestBody"] = _body(operation)
    jsonp = any(parameter.name == "callback" for parameter in (*operation.query, *operation.form))
    errors = (*operation.errors, *(() if operation.declared else (404,)))
    described["responses"] = {
        **_refusals((*_statuses(access), *errors)),
        **{str(status): _answer(answer, jsonp) for status, answer in operation.answers.items()},
    }
    if any(answer.is_endless for answer in operation.answers.values()):
        described["x-endless"] = True
    return described


def _identifier(method: str, template: str) -> str:
    return "_".join([method.lower(), *re.findall(r"\w+", template)])


def _prose(docstring: str) -> str:
    """A docstring as Markdown."""
    return " ".join(inspect.cleandoc(docstring).replace("``", "`").split())


def _statuses(access: Access) -> tuple[int, ...]:
    return (*_ANY, *(_CHECKED if access.privilege else ()))


def _security(access: Access) -> list[dict[str, list[str]]]:
    """acl.conf decides whether credentials are needed, so none at all is one of the alternatives."""
    schemes: list[dict[str, list[str]]] = [{scheme: []} for scheme in _SECURITY]
    return [{}, *schemes] if access.privilege else []


def _refusals(statuses: Iterable[int]) -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(set(statuses))}


def _refusal(status: int, text: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": f"{responses[status]}. {text}",
        "content": {JSON: {"schema": ref("Error")}, HTML: {"schema": {"type": "string"}}},
    }
    if status == 401:
        described["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    elif status in (429, 503):
        described["headers"] = {"Retry-After": _RETRY_AFTER}
    return described


def _parameter(parameter: Parameter, where: str) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": where,
        "required": parameter.required,
        "schema": parameter.kind.schema,
        "description": parameter.text,
    }


def _body(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.form:
        content = {media_type: {"schema": _fields(operation, as_json=False)} for media_type in _FORMS}
    if operation.takes_json:
        content[JSON] = {"schema": _fields(operation, as_json=True)}
    for body in operation.bodies:
        content[body.media_type] = {"schema": {**body.schema, "description": body.text}}
    return {"content": content, "required": bool(operation.any_of) or any(p.required for p in operation.form)}


def _fields(operation: Operation, as_json: bool) -> Schema:
    """A form's fields; or the members of a JSON object, of which a message may be any value."""
    properties = {
        field.name: {
            **({} if as_json and isinstance(field.kind, Exact) else field.kind.schema),
            "description": field.text,
        }
        for field in operation.form
    }
    fields: Schema = {
        "type": "object",
        "properties": properties,
        "required": [field.name for field in operation.form if field.required],
    }
    if operation.any_of:
        fields["anyOf"] = [{"required": [name]} for name in operation.any_of]
    if operation.strict:
        fields["additionalProperties"] = False
    return fields if operation.strict else {**fields, **_without_other_names(operation.known)}


def _without_other_names(known: Collection[str]) -> Schema:
    """The rule of ``schema.names``, but for names that resemble known ones."""
    return {"propertyNames": {"not": {"enum": sorted(MEANINGFUL.difference(known))}}}


def _answer(answer: Answer, jsonp: bool) -> dict[str, Any]:
    content = dict(answer.content)
    if jsonp and content:
        content[JAVASCRIPT] = {"type": "string"}
    described: dict[str, Any] = {"description": answer.text}
    if content:
        described["content"] = {media_type: {"schema": schema} for media_type, schema in content.items()}
    if answer.headers:
        described["headers"] = {
            name: {"schema": {"type": "string"}, "description": text} for name, text in answer.headers.items()
        }
    return described


def _commands(at_queue: bool) -> Schema:
    return {"type": "object", "oneOf": [_command(name, command, at_queue) for name, command in COMMANDS.items()]}


def _command(name: str, command: Command, at_queue: bool) -> Schema:
    """A command. It needs ``queue`` unless the path or the key of a receipt names the queue."""
    needs_queue = command.names_queue and not at_queue and "receipt" not in command.fields
    properties: dict[str, Schema] = {"cmd": {"type": "string", "const": name}}
    if command.names_queue:
        properties["queue"] = QUEUE
    properties |= {known: kind.schema for known, kind in command.fields.items()}
    described: Schema = {
        "title": name,
        "description": command.text,
        "type": "object",
        "properties": properties,
        "required": ["cmd", *(["queue"] if needs_queue else []), *command.required],
    }
    described |= _without_other_names(properties)
    if command.one_of:
        described["oneOf"] = [{"required": [one]} for one in command.one_of]
    if command.needs:
        described["dependentRequired"] = {known: [needed] for known, needed in command.needs.items()}
    return described


class DescriptionHandler(Handler):
    """``/openapi.json``."""

    requires = {"GET": OPEN}

    @declare(answers={200: answers_json("An OpenAPI 3.1 document.", {"type": "object"})})
    async def get(self) -> None:
        """The API's description."""
        self.answer(to_json(self.services.description), JSON)


class DescriptionPageHandler(Handler):
    """``/api``."""

    requires = {"GET": OPEN}

    @declare(answers={200: answers_page("The page.")})
    async def get(self) -> None:
        """A page with this description."""
        self.answer_page("description.html", api=self.services.description)
