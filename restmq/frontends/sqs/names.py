"""Names of queues in URLs and ARNs."""

from __future__ import annotations

import re
from random import getrandbits
from urllib.parse import quote, unquote

from restmq.frontends.sqs.errors import SqsError, invalid_value
from restmq.http.request import Request

#: The server is one account in one region. It accepts every account and region in URLs and ARNs.
ACCOUNT, REGION = "000000000000", "us-east-1"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
_ARN = re.compile(r"arn:[^:]+:sqs:[^:]*:[^:]*:(.+)", re.DOTALL)


def check_new_name(name: str) -> str:
    """The name of a queue that is to be made. Raises SqsError."""
    if not _NAME.fullmatch(name):
        raise invalid_value("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
    return name


def new_id() -> str:
    """A random id in the form of a UUID of version 4. It is no secret; ``uuid.uuid4`` takes five times as long."""
    digits = f"{getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def queue_url(request: Request, queue: str) -> str:
    """The URL of a queue, at the host that the client asked."""
    return f"{request.protocol}://{request.host}/{ACCOUNT}/{quote(queue, safe='')}"


def queue_at(url: str) -> str:
    """The queue that a URL, or its path, names. Raises SqsError."""
    try:
        name = unquote(url.rstrip("/").rpartition("/")[2], errors="strict") if "/" in url else url
    except UnicodeDecodeError:
        name = ""
    if not name:
        raise SqsError("InvalidAddress", f"The address {url} is not valid for this endpoint.", 404)
    return name


def arn_of(queue: str) -> str:
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}"


def queue_in_arn(arn: str) -> str | None:
    """The queue that an ARN names; None if it is not the ARN of a queue."""
    found = _ARN.fullmatch(arn)
    return found[1] if found else None
