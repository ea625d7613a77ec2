"""Pages for people: the dashboard, what it loads, and the answer to unknown paths."""

from __future__ import annotations

from functools import cache
from importlib import resources

from restmq import access
from restmq.errors import NotFound
from restmq.handlers.base import HTML, Handler

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".html": HTML,
}


@cache
def _static_files() -> dict[str, tuple[bytes, str]]:
    """All static files by name, read once: no request ever names a path of the disk."""
    folder = resources.files("restmq").joinpath("static")
    return {
        file.name: (file.read_bytes(), _TYPES[file.name[file.name.rindex(".") :]])
        for file in folder.iterdir()
        if "." in file.name and file.name[file.name.rindex(".") :] in _TYPES
    }


class DashboardHandler(Handler):
    """All queues at a glance, with start and stop."""

    access = {"GET": access.CONSUME}

    async def get(self) -> None:
        core = self.application.core
        lines = await core.queue_overview(await self.application.visible_queues(self))
        self.answer_page("dashboard.html", queues=lines, redis=core.store.describe())


class StaticHandler(Handler):
    """A static file."""

    access = {"GET": access.OPEN}

    async def get(self) -> None:
        body, content_type = _static_files().get(self.queue or "", (None, ""))
        if body is None:
            raise NotFound("there is no such file.")
        self.answer(body, content_type)


class NotFoundHandler(Handler):
    """Any path that is no route."""

    access = dict.fromkeys(("GET", "POST", "PUT", "DELETE", "PATCH"), access.OPEN)

    async def get(self) -> None:
        raise NotFound("there is nothing at this path; queues are at /q/<queue>, and /queue explains the commands.")

    post = put = delete = patch = get
