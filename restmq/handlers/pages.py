"""The dashboard's page, static files, and unknown paths."""

from __future__ import annotations

from functools import cache
from importlib import resources

from restmq.auth import guard
from restmq.errors import NotFound
from restmq.handlers.base import Handler

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@cache
def _static_files() -> dict[str, tuple[bytes, str]]:
    """All static files by name, read once. So a request can never name a path on disk."""
    folder = resources.files("restmq").joinpath("static")
    kinds = {file: _TYPES.get(file.name.rpartition(".")[2]) for file in folder.iterdir()}
    return {file.name: (file.read_bytes(), kind) for file, kind in kinds.items() if kind}


def static_file(name: str) -> tuple[bytes, str]:
    """A static file's content and its content type. Raises NotFound."""
    found = _static_files().get(name)
    if found is None:
        raise NotFound("there is no such file.")
    return found


class DashboardHandler(Handler):
    """The dashboard's page. It needs no access, because a token can be entered in it."""

    requires = {"GET": guard.OPEN}

    async def get(self) -> None:
        self.answer_page("dashboard.html")


class StaticHandler(Handler):
    """A static file."""

    requires = {"GET": guard.OPEN}

    async def get(self) -> None:
        self.answer(*static_file(self.queue or ""))


class IconHandler(Handler):
    """``/favicon.ico``, which browsers request for pages that name no icon."""

    requires = {"GET": guard.OPEN}

    async def get(self) -> None:
        self.answer(*static_file("icon.svg"))


class NotFoundHandler(Handler):
    """Any other path."""

    requires = dict.fromkeys(("GET", "POST", "PUT", "DELETE", "PATCH"), guard.OPEN)

    async def get(self) -> None:
        raise NotFound("there is nothing at this path; queues are at /q/<queue>, and /api describes all paths.")

    post = put = delete = patch = get
