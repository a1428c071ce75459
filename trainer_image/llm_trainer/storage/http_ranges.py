"""A file of a server, from any byte on, by httpx, which is in the image with huggingface-hub."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

import httpx

from llm_trainer.config.remote import shown
from llm_trainer.runtime.errors import DataError
from llm_trainer.storage.credentials import CA, Credential
from llm_trainer.storage.remote_files import ChangedError, RemoteFile, TransientError

SECONDS = 30.0  # without a byte
UNHURRIED = (408, 425, 429)  # beside 5xx: the same request may go well later

Refuse = Callable[[httpx.Response], None]  # raises DataError for an answer that no patience mends


def client(credential: Credential, headers: dict[str, str]) -> httpx.Client:
    """Follows redirects; to another host it shows no credential."""
    context = ssl.create_default_context()
    if authority := credential.get(CA):
        context.load_verify_locations(cadata=authority)
    return httpx.Client(
        verify=context, timeout=SECONDS, follow_redirects=True, headers={"Accept-Encoding": "identity", **headers}
    )


def read(
    by: httpx.Client,
    url: str,
    file: RemoteFile,
    start: int,
    refuse: Refuse,
    target: str,
    *,
    marked: bool = True,
    stop: int | None = None,
) -> Iterator[bytes]:
    """Its bytes from `start` on. `marked`: the server's mark of it must be that of the listing. Raises as a Source."""
    headers = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"} if start or stop is not None else {}
    with said(url, target), by.stream("GET", url, headers=headers) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise ChangedError(f"{shown(url)} is shorter than the {file.size} bytes that were told")
        check(answer, url, refuse)
        size, mark = size_of(answer), mark_of(answer)
        if size not in (file.size, None) or (marked and mark != file.etag):
            raise ChangedError(
                f"{shown(url)} has changed: {size} bytes, {mark}, and was {file.size} bytes, {file.etag}"
            )
        whole = answer.status_code == httpx.codes.OK  # a server without ranges
        if whole and start and stop is not None:
            raise DataError(f"{shown(url)}: the server gives no ranges, so it can't be streamed; remove stream")
        skip = start if whole else 0
        for block in answer.iter_raw():  # as they come: joined to larger ones they would be copied three times
            if skip >= len(block):
                skip -= len(block)
                continue
            yield block[skip:]
            skip = 0


def check(answer: httpx.Response, url: str, refuse: Refuse) -> None:
    """Raises TransientError for what may go well later, and what `refuse` raises for the rest."""
    status = answer.status_code
    if url.startswith("https://") and answer.url.scheme != "https":
        raise DataError(
            f"{shown(url)}: the server sends to {answer.url.host} without encryption; name it by https there"
        )
    if answer.is_success:
        return
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in UNHURRIED:
        raise TransientError(f"{shown(url)}: the server answers {status}", wait_of(answer))
    refuse(answer)
    raise DataError(f"{shown(url)}: the server answers {status} {answer.reason_phrase}; check the URI")


@contextmanager
def said(url: str, target: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise DataError(
                f"{shown(url)}: the server's certificate is not trusted; put its authority's into {CA} of a Secret of "
                f"spec.credentials, for: {target}"
            ) from error
        raise TransientError(f"{shown(url)}: {type(error).__name__}: {error}") from error


def mark_of(answer: httpx.Response) -> str | None:
    """By which a change is noticed."""
    mark: str | None = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    return mark


def size_of(answer: httpx.Response) -> int | None:
    """Of the whole file."""
    if answer.status_code == httpx.codes.PARTIAL_CONTENT:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = answer.headers.get("Content-Length", "")
    return int(total) if total.isdecimal() else None


def wait_of(answer: httpx.Response) -> float:
    """Seconds of Retry-After, at most a minute."""
    told = answer.headers.get("Retry-After", "")
    if told.isdecimal():
        return min(60.0, float(told))
    try:
        until = parsedate_to_datetime(told).timestamp()
        return min(60.0, max(0.0, until - parsedate_to_datetime(answer.headers["Date"]).timestamp()))
    except (ValueError, TypeError, KeyError):
        return 0.0
