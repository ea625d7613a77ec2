"""Amazon's Signature Version 4 in the header ``Authorization``: parsing and checking.

A signature covers the method, the path, the query, the signed headers and the body. The key of the signature is derived
from the secret of an access key, which never crosses the wire.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import parse_qsl, quote

from restmq.frontends.sqs.errors import SqsError
from restmq.http.request import Request

ALGORITHM, SERVICE = "AWS4-HMAC-SHA256", "sqs"
#: Maximum difference between the date of a signature and the server's clock.
SKEW_SECONDS = 900
_FIELD = re.compile(r"\s*(Credential|SignedHeaders|Signature)=([^,\s]+)\s*(?:,|$)")
_BLANKS = re.compile(r" +")


@dataclass(slots=True, frozen=True)
class Signature:
    """The signature in a request.

    Attributes:
        access_key: the id of the access key, which names a token.
        scope: date, region, service and ``aws4_request``.
    """

    access_key: str
    scope: tuple[str, str, str, str]
    signed_headers: tuple[str, ...]
    signature: str


def parse_signature(request: Request) -> Signature:
    """Raises SqsError if the request has no signature, or an incomplete one."""
    header: str = request.headers.get("authorization", "")
    if not header:
        raise SqsError("MissingAuthenticationToken", "Sign the request with an access key of this server.")
    if not header.startswith(ALGORITHM + " "):
        raise SqsError("IncompleteSignature", f"The header Authorization must begin with {ALGORITHM}.")
    fields = dict(_FIELD.findall(header[len(ALGORITHM) :]))
    access_key, *scope = fields.get("Credential", "").rsplit("/", 4)
    if len(fields) < 3 or len(scope) != 4 or scope[3] != "aws4_request":
        raise SqsError("IncompleteSignature", "Authorization needs Credential, SignedHeaders and Signature.")
    date, region, service, end = scope
    if service != SERVICE:
        raise SqsError("SignatureDoesNotMatch", f"Credential should be scoped to correct service: '{SERVICE}'.")
    names = tuple(fields["SignedHeaders"].lower().split(";"))
    return Signature(access_key, (date, region, service, end), names, fields["Signature"])


def check_signature(request: Request, found: Signature, secret: str, now: datetime) -> bool:
    """Whether this secret made the signature. Raises SqsError if the signature does not cover enough, or is too old."""
    date = request.headers.get("x-amz-date", "")
    unsigned = [name for name in request.headers if name.startswith("x-amz-") and name not in found.signed_headers]
    if not date or "host" not in found.signed_headers or unsigned:
        raise SqsError("IncompleteSignature", "Sign the header Host and all headers that begin with X-Amz-.")
    try:
        signed_at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise SqsError("IncompleteSignature", "X-Amz-Date must look like 20260131T235959Z.") from None
    if abs((now - signed_at).total_seconds()) > SKEW_SECONDS or not date.startswith(found.scope[0]):
        raise SqsError(
            "SignatureDoesNotMatch", "Signature expired: check the client's clock, and sign the request anew."
        )
    parts = (ALGORITHM, date, "/".join(found.scope), hashlib.sha256(_canonical(request, found)).hexdigest())
    key = _signing_key(secret, found.scope)
    computed = hmac.new(key, "\n".join(parts).encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(computed.encode(), found.signature.encode())


@lru_cache(maxsize=256)
def _signing_key(secret: str, scope: tuple[str, ...]) -> bytes:
    key = b"AWS4" + secret.encode()
    for part in scope:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _canonical(request: Request, found: Signature) -> bytes:
    """The canonical form of the request. The hash of the body is computed, never believed."""
    pairs = parse_qsl(request.query, keep_blank_values=True, encoding="latin-1")
    encoded = sorted((_encoded(name), _encoded(value)) for name, value in pairs)
    headers = [f"{name}:{_BLANKS.sub(' ', request.headers.get(name, '').strip())}\n" for name in found.signed_headers]
    lines = (
        request.method,
        quote(request.path, safe="/-_.~"),
        "&".join(f"{name}={value}" for name, value in encoded),
        "".join(headers),
        ";".join(found.signed_headers),
        hashlib.sha256(request.body).hexdigest(),
    )
    return "\n".join(lines).encode("latin-1")


def _encoded(text: str) -> str:
    return quote(text.encode("latin-1"), safe="-_.~")
