from __future__ import annotations

from typing import Any

import pytest

from tests.servers import Daemon
from tests.sqs.clients import connect


@pytest.fixture
def sqs(daemon: Daemon) -> Any:
    """A boto3 client of the shared daemon."""
    return connect(daemon.port)


@pytest.fixture
def url(sqs: Any, queue: str) -> str:
    """The URL of a queue that no other test uses."""
    return str(sqs.create_queue(QueueName=queue)["QueueUrl"])
