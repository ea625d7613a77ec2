"""Clients of the SQS interface."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

#: A client tries once, so that a test sees each error.
ONE_TRY = {"total_max_attempts": 1, "mode": "standard"}


def connect(port: int, key: str = "any", secret: str = "any", **config: Any) -> Any:
    """A boto3 client of the server at this port."""
    return boto3.client(
        "sqs",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries=ONE_TRY, **config),
    )


def bodies(answer: dict[str, Any]) -> list[str]:
    """The bodies of received messages."""
    return [message["Body"] for message in answer.get("Messages", [])]
