from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings

from tests.in_memory import WHOLE, App, Client

# An example may take long on a busy machine; no test here measures time.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(params=[WHOLE, 1], ids=["whole", "byte by byte"])
def step(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def connect(step: int) -> Callable[..., Client]:
    """Connects a client that sends its input in one piece, or byte by byte."""
    return lambda **options: Client(App(**options), step)
