"""The API's description, for machines and for people."""

from __future__ import annotations

from restmq.auth import guard
from restmq.describe import answers_json, answers_page, declare
from restmq.handlers.base import Handler
from restmq.http.response import JSON


class DescriptionHandler(Handler):
    """``/openapi.json``."""

    requires = {"GET": guard.OPEN}

    @declare(answers={200: answers_json("An OpenAPI 3.1 document.", {"type": "object"})})
    async def get(self) -> None:
        """This description."""
        self.answer(self.application.description_json, JSON)

    head = get


class DescriptionPageHandler(Handler):
    """``/api``."""

    requires = {"GET": guard.OPEN}

    @declare(answers={200: answers_page("The page.")})
    async def get(self) -> None:
        """A page to read this description on."""
        self.answer_page("description.html", api=self.application.description)

    head = get
