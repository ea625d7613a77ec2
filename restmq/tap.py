"""What twistd asks a plugin's module for; the parts come in when they are needed."""

from __future__ import annotations

from typing import Any

CYCLONE_MISSING = "restmq: cyclone is missing; type: pip install --no-deps cyclone==1.3"


def Options() -> Any:
    """The options of ``twistd restmq``."""
    try:
        from restmq.options import Options as RestMQOptions
    except ModuleNotFoundError as missing:
        if missing.name == "cyclone":
            raise SystemExit(CYCLONE_MISSING) from None
        raise
    return RestMQOptions()


def makeService(options: Any) -> Any:
    """The service that the options describe."""
    from restmq.service import makeService as make

    return make(options)
