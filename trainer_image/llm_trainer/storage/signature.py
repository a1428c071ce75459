"""How a request to S3 shows its key without telling it: AWS Signature Version 4 ("AWS API request signing")."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

UNRESERVED = "-_.~"


@dataclass(frozen=True)
class Key:
    access_key_id: str
    secret: str = field(repr=False)
    region: str
    session_token: str = field(default="", repr=False)


def target_of(path: str, query: Mapping[str, str]) -> str:
    """Path and query as they are signed, and have to be sent: all encoded but what needs none."""
    pairs = sorted((quote(name, safe=UNRESERVED), quote(value, safe=UNRESERVED)) for name, value in query.items())
    said = "&".join(f"{name}={value}" for name, value in pairs)
    return quote(path, safe=f"/{UNRESERVED}") + (f"?{said}" if said else "")


def signed(
    key: Key, method: str, host: str, target: str, headers: Mapping[str, str], sha256: str, now: datetime | None = None
) -> dict[str, str]:
    """The headers of a request, with those that sign it. ``sha256``: of its body, which the server compares."""
    at = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    sent = {**headers, "host": host, "x-amz-content-sha256": sha256, "x-amz-date": at}
    if key.session_token:
        sent["x-amz-security-token"] = key.session_token
    sent = {name.lower(): value.strip() for name, value in sent.items()}
    path, _, query = target.partition("?")
    names = ";".join(sorted(sent))
    listed = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
    request = f"{method}\n{path}\n{query}\n{listed}\n{names}\n{sha256}"
    scope = f"{at[:8]}/{key.region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    secret = f"AWS4{key.secret}".encode()
    for part in scope.split("/"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signature = hmac.digest(secret, text.encode(), "sha256").hex()
    shown = f"Credential={key.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**sent, "authorization": f"AWS4-HMAC-SHA256 {shown}"}
