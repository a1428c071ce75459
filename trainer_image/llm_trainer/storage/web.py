"""Files of https:// servers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx

from llm_trainer.config.remote import Remote, shown
from llm_trainer.runtime.errors import DataError
from llm_trainer.storage import http_ranges
from llm_trainer.storage.credentials import Credential
from llm_trainer.storage.ranges import fetch_ranges
from llm_trainer.storage.remote_files import Listing, RemoteFile, Tell


class Web:
    def __init__(self, credential: Credential, writer: str) -> None:
        """`writer`: of what no server has a mark, each training keeps its own."""
        self._credential, self._writer = credential, writer
        token = credential.get("TOKEN")
        self._client = http_ranges.client(credential, {"Authorization": f"Bearer {token}"} if token else {})

    def listing(self, remote: Remote) -> Listing:
        url = _url(remote)
        with (
            http_ranges.said(url, self._credential.target),
            self._client.stream("GET", url, headers={"Range": "bytes=0-0"}) as answer,
        ):
            http_ranges.check(answer, url, self._refuse)
            size, mark = http_ranges.size_of(answer), http_ranges.mark_of(answer)
        if size is None:
            raise DataError(f"{shown(url)}: the server tells no length; put the file onto a claim or into a bucket")
        text = f"{remote.query}\0{size}\0{mark or self._writer}"
        return Listing(hashlib.sha256(text.encode()).hexdigest()[:32], (RemoteFile(remote.path, size, mark),))

    def read(self, remote: Remote, file: RemoteFile, start: int, stop: int | None = None) -> Iterator[bytes]:
        target = self._credential.target
        return http_ranges.read(self._client, _url(remote), file, start, self._refuse, target, stop=stop)

    def fetch(self, remote: Remote, file: RemoteFile, part: Path, tell: Tell) -> str:
        return fetch_ranges(self, remote, file, part, tell)

    def _refuse(self, answer: httpx.Response) -> None:
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise DataError(
                f"{shown(str(answer.request.url))}: the server asks who reads (401); {self._credential.advice}"
            )
        if answer.status_code == httpx.codes.FORBIDDEN:
            raise DataError(
                f"{shown(str(answer.request.url))}: the server does not let it be read (403); {self._credential.advice}"
            )


def _url(remote: Remote) -> str:
    return f"https://{remote.authority}/{quote(remote.path)}{'?' + remote.query if remote.query else ''}"
