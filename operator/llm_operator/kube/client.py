"""The API server's verbs that the operator uses, on plain dicts. Every write can be repeated without harm."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from llm_operator.kube.decoding import decoded
from llm_operator.kube.drift import FIELD_MANAGER
from llm_operator.kube.kinds import KINDS, Kind
from llm_operator.kube.login import Connection, LoginError
from llm_operator.kube.plan import Delete, Manifest

# In an apply: only if there is no such object. The server makes what isn't there whatever version is named, and answers
# 409 where an object has another version; none has this one, which is etcd's before its first write.
ABSENT = {"resourceVersion": "1"}
APPLY = "application/apply-patch+yaml"
JSON = "application/json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
PAGE = 500  # objects; the server holds a whole answer in memory, and so do we
# Of a page of more than one object, each of which may have 1.5 MiB. To read JSON of the worst shape takes 70 ms a MiB,
# in which nothing else goes on: the interpreter's lock is held, so that a thread would change nothing.
PAGE_BYTES = 4 << 20
ATTEMPTS = 5
BACKOFF_SECONDS = 0.2  # doubled at every attempt, unless the server says how long to wait
LONGEST_WAIT_SECONDS = 30.0
# A connection that breaks, or something in between that does not speak as an API server does.
NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
PASSING = {429, 500, 502, 503, 504}
MALFORMED = "failed to create typed patch object"  # an unknown field in an apply: the server calls it its own fault


class ApiError(Exception):
    """The API server's answer was no. ``status`` 0: there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message

    @property
    def refused(self) -> bool:
        """Trying the same again won't help."""
        return self.status in (400, 403, 405, 413, 422) or MALFORMED in self.message


class RefusedError(ApiError):
    """A child that the API server will not have as it is: a quota, an admission webhook, a value of the spec."""


class DeleteRefusedError(RefusedError):
    """A child that must stay: all else of the plan was done, but its status and events."""

    look_again: float | None = None  # seconds after which the plan wanted a pass for something else


class LargePageError(ApiError):
    """A page has more bytes than we hold at a time: ask for fewer objects."""


class NotFoundError(ApiError):
    """404."""


class ConflictError(ApiError):
    """409: another version, another uid, or it exists already."""


class Client:
    """One session to the API server."""

    def __init__(self, connection: Connection, request_seconds: float = 30, page: int = PAGE) -> None:
        self.page = page
        self._connection = connection
        self._session = connection.session()
        self._timeout = request_seconds

    async def close(self) -> None:
        await self._session.close()

    async def get(
        self, path: str, query: Mapping[str, str] | None = None, accept: str = JSON, most_bytes: int | None = None
    ) -> Manifest:
        """An object or a collection by its path. Raises LargePageError beyond so many bytes."""
        return await self.request("GET", path, query=query, headers={"Accept": accept}, most_bytes=most_bytes)

    async def pages(self, path: str, query: Mapping[str, str], accept: str = JSON) -> AsyncGenerator[Manifest, None]:
        """A collection as it was at one moment, a page at a time, of fewer objects where they are large.

        Raises ApiError 410 if it took so long that the server has forgotten that moment.
        """
        token, limit = "", self.page
        while True:
            asked = {**query, "limit": str(limit), "continue": token}
            try:
                page, size = await self._answer(
                    "GET", path, query=asked, headers={"Accept": accept}, most_bytes=PAGE_BYTES if limit > 1 else None
                )
            except LargePageError:
                limit = max(1, limit // 4)
                continue
            token = page["metadata"].get("continue", "")
            yield page
            del page  # before there is another one
            if not token:
                return
            fitting = limit * PAGE_BYTES // (2 * size)  # if those that follow are as large
            limit = max(1, min(self.page, limit * 2, fitting))

    @asynccontextmanager
    async def watch(
        self, path: str, query: Mapping[str, str], accept: str = JSON, *, silent_seconds: float
    ) -> AsyncIterator[AsyncIterator[Manifest]]:
        """The events of a collection until the server ends the watch.

        Raises ApiError if it does not begin, or breaks, or nothing comes for so long; it is not repeated.
        """
        try:
            async with self._session.get(
                self._connection.server + path,
                params={**query, "watch": "true"},
                headers={"Accept": accept},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=silent_seconds),
            ) as response:
                if not response.ok:
                    error = _error(response.status, await response.read())
                    if error.status == 401:
                        await self._renew(error)
                    raise error
                yield (decoded(line) async for line in _lines(response.content))
        except NO_ANSWER as lost:
            raise ApiError(0, f"watch {path}: {str(lost) or type(lost).__name__}") from lost

    async def apply(self, manifest: Manifest, only: Mapping[str, str] | None = None) -> Manifest:
        """Server-side apply: creates the object or sets the fields that the manifest has. Returns the whole object.

        ``only``: if its metadata has this, such as the uid, or ``ABSENT``. Else ApiError 409 or 422.
        """
        metadata = {**manifest["metadata"], **(only or {})}
        return await self.request(
            "PATCH",
            KINDS[manifest["kind"]].path(metadata["namespace"], metadata["name"]),
            query={"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"},
            headers={"Content-Type": APPLY},
            body={**manifest, "metadata": metadata},
        )

    async def delete(self, namespace: str, child: Delete) -> Manifest | None:
        """Deletes the child with this uid.

        Returns the object if it still has finalizers to wait for, None if it is gone or was another one.
        """
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": child.uid},
            "propagationPolicy": "Foreground" if child.foreground else "Background",
        }
        try:
            answer = await self.request("DELETE", KINDS[child.kind].path(namespace, child.name), body=body)
        except (NotFoundError, ConflictError):
            return None
        return None if answer.get("kind") == "Status" else answer

    async def replace_status(self, owner: Manifest, status: Manifest) -> Manifest:
        """Writes the whole status of the object as it was when ``owner`` was read.

        Raises ConflictError if it has changed since: a decision on what is stale must not overwrite a newer one.
        """
        metadata = {field: owner["metadata"][field] for field in ("name", "namespace", "uid", "resourceVersion")}
        body = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "metadata": metadata, "status": status}
        path = KINDS[owner["kind"]].path(metadata["namespace"], metadata["name"], "status")
        return await self.request("PUT", path, query={"fieldManager": FIELD_MANAGER}, body=body)

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Raises ConflictError if the name is taken, also by this call's own first try whose answer was lost."""
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return await self.request("POST", kind.path(manifest["metadata"]["namespace"]), query=query, body=manifest)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        attempts: int = ATTEMPTS,
        timeout_seconds: float | None = None,
        most_bytes: int | None = None,
    ) -> Manifest:
        """One request, repeated while the server is busy or away. Raises ApiError."""
        answer, _ = await self._answer(
            method, path, query=query, headers=headers, body=body, attempts=attempts, timeout_seconds=timeout_seconds,
            most_bytes=most_bytes,
        )  # fmt: skip
        return answer

    async def _answer(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        attempts: int = ATTEMPTS,
        timeout_seconds: float | None = None,
        most_bytes: int | None = None,
    ) -> tuple[Manifest, int]:
        """The answer and its bytes."""
        timeout = aiohttp.ClientTimeout(total=timeout_seconds or self._timeout)
        for attempt in range(attempts):
            wait = min(BACKOFF_SECONDS * 2**attempt * random.uniform(0.5, 1.5), LONGEST_WAIT_SECONDS)  # noqa: S311
            try:
                async with self._session.request(
                    method,
                    self._connection.server + path,
                    params=query,
                    headers={"Content-Type": JSON, **(headers or {})},
                    data=None if body is None else json.dumps(body, separators=(",", ":")),
                    timeout=timeout,
                ) as response:
                    text = await _read(response, most_bytes)
                    if response.ok:
                        return decoded(text), len(text)
                    error = _error(response.status, text)
                    wait = max(wait, _retry_after(response))
            except NO_ANSWER as lost:
                error = ApiError(0, f"{method} {path}: {str(lost) or type(lost).__name__}")
            if error.status == 401 and attempt == 0:
                await self._renew(error)
            elif error.refused or (error.status not in PASSING and error.status != 0):
                raise error
            if attempt + 1 < attempts:
                await asyncio.sleep(wait)
        raise error

    async def _renew(self, refusal: ApiError) -> None:
        try:
            await self._connection.renew()
        except (LoginError, OSError, ValueError) as error:  # being written just now, say: the next try may read it
            raise ApiError(0, f"{refusal}; the credentials can't be read: {error}") from error


async def _read(response: aiohttp.ClientResponse, most: int | None) -> bytes:
    if most is None:
        return await response.read()
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most:
            raise LargePageError(response.status, f"a page of more than {most:,} bytes")
    return bytes(body)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The iterator of aiohttp refuses lines of more than 128 KiB, and an object may have 1.5 MiB."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _error(status: int, text: bytes) -> ApiError:
    try:
        message = str(decoded(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text[:1000].decode(errors="replace")
    classes: dict[int, type[ApiError]] = {404: NotFoundError, 409: ConflictError}
    return classes.get(status, ApiError)(status, message)


def _retry_after(response: Any) -> float:
    try:
        return min(float(response.headers.get("Retry-After", 0)), LONGEST_WAIT_SECONDS)
    except ValueError:  # a date: nobody in front of an API server sends one
        return 0.0
