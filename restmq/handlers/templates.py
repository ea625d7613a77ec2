"""Pages that are rendered from templates."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import cyclone.template


@cache
def _loader() -> Any:
    return cyclone.template.Loader(str(resources.files("restmq").joinpath("templates")))


def render(template: str, **names: Any) -> bytes:
    """A page from a template of ``restmq/templates``, which escapes all values. Its menu marks the template."""
    page: bytes = _loader().load(template).generate(shown=template, **names)
    return page
