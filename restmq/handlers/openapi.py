"""The API's description (OpenAPI 3.1), made of what stands beside the routes: nothing of it is written twice."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from http.client import responses
from typing import Any

from restmq import __version__
from restmq.auth.guard import OPEN, Access
from restmq.dispatch import COMMANDS, Command
from restmq.handlers.base import Handler
from restmq.handlers.declare import (
    Answer,
    Operation,
    Parameter,
    answers_json,
    answers_page,
    declare,
)
from restmq.http.response import HTML, JAVASCRIPT, JSON
from restmq.schema.answers import QUEUE, SHAPES, any_of, ref
from restmq.schema.fields import MESSAGE_KEY, QUEUE_NAME, Kind, Schema

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_IN_PATHS: dict[str, tuple[Kind, str]] = {
    "queue": (QUEUE_NAME, "The queue's name, percent-encoded."),
    "key": (MESSAGE_KEY, "The message's key, percent-encoded."),
    "file": (QUEUE_NAME, "The file's name."),
}

#: What any request may be answered with, by status; the wire's own refusals among them.
_ANY = (400, 403, 408, 413, 414, 417, 421, 431, 500, 503)
#: What a request may be answered with too that is checked for who sends it.
_CHECKED = (401, 429)
_REFUSALS = {
    400: "Malformed: the error says what.",
    401: "A password or a token is needed, or the one given is wrong.",
    403: "Not allowed: by address, by what the token is for, or because a page of another site asks.",
    404: "There is no such thing.",
    408: "The request took too long to arrive.",
    409: "It contradicts what was said before.",
    410: "The lease is over, was acked, or never was.",
    413: "The body, or what it holds, is too long.",
    414: "The URL is too long.",
    417: "An expectation that is not known.",
    421: "This server does not go by that name.",
    426: "This path speaks WebSocket.",
    429: "Too much: the queue is full, or too many passwords were wrong. Retry-After says when to try again.",
    431: "The header section is too long.",
    500: "The server failed; its log says why.",
    503: "The store does not answer, or there are too many clients. Retry-After says when to try again.",
}
_RETRY_AFTER = {"schema": {"type": "integer"}, "description": "Seconds after which it may succeed."}
_SECURITY = {
    "basic": {"type": "http", "scheme": "basic", "description": "As acl.conf says."},
    "token": {"type": "http", "scheme": "bearer", "description": "A token from the store."},
    "authkey": {"type": "apiKey", "in": "query", "name": "authkey", "description": "The same in the query."},
}


def describe(routes: Iterable[tuple[str, type[Handler]]]) -> dict[str, Any]:
    """The description of these routes, by their templates; one that is no path is left out.

    Returns:
        An OpenAPI 3.1.0 document.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "RestMQ",
            "version": __version__,
            "summary": "A message queue that speaks HTTP.",
            "description": (
                "Form fields may stand in the query as well, and of a name that comes twice the last one counts. "
                "A slash at the end of a path without a name may be there or not. Errors are JSON, or a page for a "
                "client that accepts text/html."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
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
        "summary": "Which methods there are",
        "security": [],
        "responses": {
            "204": {"description": "See Allow.", "headers": {"Allow": {"schema": {"type": "string"}}}},
            **_refusals(_ANY),
        },
    }
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _IN_PATHS[name][0].schema,
            "description": _IN_PATHS[name][1],
        }
        for name in re.findall(r"\{(\w+)\}", template)
    ]
    return {**({"parameters": parameters} if parameters else {}), **path}


def _head(template: str, handler: type[Handler]) -> dict[str, Any]:
    """Of an answer to HEAD only the status and a type are promised: a GET may take a message."""
    answers = handler.operations["GET"].answers
    elsewhere = {str(status): {"description": answers[status].text} for status in answers if 300 <= status < 400}
    return {
        "operationId": _identifier("HEAD", template),
        "summary": "Whether one may GET this; takes nothing",
        "security": _security(handler.requires["GET"]),
        "responses": {
            "200": {"description": "One may."},
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
    if operation.streams:
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
    """Whether something must be shown is for acl.conf to say; so nothing is one of the ways."""
    ways: list[dict[str, list[str]]] = [{scheme: []} for scheme in _SECURITY]
    return [{}, *ways] if access.privilege else []


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
        fields: Schema = {
            "type": "object",
            "properties": {p.name: {**p.kind.schema, "description": p.text} for p in operation.form},
            "required": [parameter.name for parameter in operation.form if parameter.required],
        }
        if operation.any_of:
            fields["anyOf"] = [{"required": [name]} for name in operation.any_of]
        content = {form: {"schema": fields} for form in _FORMS}
    for body in operation.bodies:
        content[body.media_type] = {"schema": {**body.schema, "description": body.text}}
    return {"content": content, "required": bool(operation.any_of) or any(p.required for p in operation.form)}


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
    """A command; where its queue is not named by the path, or by the key of a receipt, it must say it."""
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
    if command.one_of:
        described["oneOf"] = [{"required": [one]} for one in command.one_of]
    return described


class DescriptionHandler(Handler):
    """``/openapi.json``."""

    requires = {"GET": OPEN}

    @declare(answers={200: answers_json("An OpenAPI 3.1 document.", {"type": "object"})})
    async def get(self) -> None:
        """This description."""
        self.answer(self.application.description_json, JSON)

    head = get


class DescriptionPageHandler(Handler):
    """``/api``."""

    requires = {"GET": OPEN}

    @declare(answers={200: answers_page("The page.")})
    async def get(self) -> None:
        """A page to read this description on."""
        self.answer_page("description.html", api=self.application.description)

    head = get
