"""What an S3-compatible bucket lists, asked by requests that are signed here: the operator's image has no client of S3.

Signature Version 4 of one GET without a body (AWS General Reference, "Create a signed request").
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from html import unescape
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request

MOST_PAGES, PAGE = 20, 1000  # pages, and the keys of one
ENTRY = re.compile(r"<Contents>(.*?)</Contents>", re.DOTALL)
KEY, SIZE = re.compile(r"<Key>(.*?)</Key>", re.DOTALL), re.compile(r"<Size>(\d+)</Size>")
NEXT = re.compile(r"<NextContinuationToken>(.*?)</NextContinuationToken>")
NOTHING = hashlib.sha256(b"").hexdigest()

Environment = Mapping[str, str]


def lacks(environment: Environment) -> str:
    """Which variables are missing; empty if a bucket can be asked."""
    return " and ".join(name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if not environment.get(name))


def listed(
    bucket: str, prefix: str, environment: Environment, now: Callable[[], datetime], ask: Callable[[Request], bytes]
) -> Iterator[tuple[str, int]]:
    """Keys and sizes, of MOST_PAGES at most. Raises what `ask` does, and ValueError for an endpoint that is none."""
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = (environment.get("AWS_ENDPOINT_URL") or f"https://s3.{region}.amazonaws.com").rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        raise ValueError("AWS_ENDPOINT_URL is no http:// or https:// address")
    token = ""
    for _ in range(MOST_PAGES):
        query = {"list-type": "2", "prefix": prefix, **({"continuation-token": token} if token else {})}
        page = ask(signed(f"{endpoint}/{bucket}", query, region, environment, now())).decode()
        for entry in ENTRY.findall(page):
            key, size = KEY.search(entry), SIZE.search(entry)
            if key and size:
                yield unescape(key[1]), int(size[1])
        found = NEXT.search(page)
        if found is None:
            return
        token = unescape(found[1])


def signed(url: str, query: Mapping[str, str], region: str, environment: Environment, now: datetime) -> Request:
    parts = urlsplit(url)
    asked = urlencode(sorted(query.items()), quote_via=quote, safe="-_.~")
    headers = {"host": parts.netloc, "x-amz-content-sha256": NOTHING, "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ")}
    if session := environment.get("AWS_SESSION_TOKEN"):
        headers["x-amz-security-token"] = session
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = f"GET\n{quote(parts.path)}\n{asked}\n{lines}\n{names}\n{NOTHING}"
    scope = f"{now:%Y%m%d}/{region}/s3/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{environment['AWS_SECRET_ACCESS_KEY']}".encode()
    for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{hashed}"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    request = Request(f"{url}?{asked}")  # noqa: S310 -- the caller has looked at its scheme
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    said = f"Credential={environment['AWS_ACCESS_KEY_ID']}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    request.add_unredirected_header("Authorization", f"AWS4-HMAC-SHA256 {said}")
    return request
