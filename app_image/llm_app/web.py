"""Reads documents of the network: of the internet, and of what networks a spec allows, of bounded size and time.

An address is looked at when a connection is made, so that neither a redirect nor a name that changes its address
between two looks leads into the cluster.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from llm_app.addresses import Network, outside
from llm_app.away import AwayError
from llm_app.config import Document, IndexSource
from llm_app.documents import MOST_BYTES, PDF, READ, TITLE_CHARACTERS, DataError, Found, parsed

REDIRECTS, TRIES, SECONDS = 5, 4, 120.0
KINDS = {
    "text/html": ".html", "application/xhtml+xml": ".html", "text/plain": ".txt", "text/markdown": ".md",
    "text/x-rst": ".rst", "application/pdf": ".pdf", "application/jsonl": ".jsonl", "application/x-ndjson": ".jsonl",
    "application/x-jsonlines": ".jsonl",
}  # fmt: skip
ANY = ("", "application/octet-stream", "binary/octet-stream")  # types that say nothing
AGENT = "llm-operator"


class FetchError(AwayError):
    """Of one URL."""


class InsideError(OSError):
    """An address that is not of the internet."""


@dataclass(frozen=True)
class Got:
    data: bytes
    kind: str  # as files of its kind end
    charset: str = ""


def pages(source: IndexSource, found: Found) -> Iterator[Document]:
    """In the order of the URLs. Raises DataError, or FetchError."""
    allowed = [ipaddress.ip_network(one) for one in source.allowed_networks]
    for url in source.urls:
        got = asyncio.run(tried(url, allowed))
        name = url[:TITLE_CHARACTERS]
        some = False
        for document in parsed(in_utf8(got, url), got.kind, name):
            some = some or bool(document.text.strip())
            yield document.model_copy(update={"metadata": {"url": name, **document.metadata}})
        if not some:
            found.empty.append(name)


async def tried(url: str, allowed: Sequence[Network]) -> Got:
    wait = 1.0
    for left in reversed(range(TRIES)):
        try:
            return await fetched(url, allowed)
        except FetchError as error:
            if not error.passes or not left:
                raise
            print(f"it is tried again in {wait:.0f} s: {error}", flush=True)
        await asyncio.sleep(wait)
        wait *= 4
    raise AssertionError("the last try raises")


async def fetched(url: str, allowed: Sequence[Network]) -> Got:
    """Raises FetchError or DataError."""
    connector = aiohttp.TCPConnector(resolver=OutsideResolver(allowed))
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers={"User-Agent": AGENT}) as session:
        here = url
        for _ in range(REDIRECTS + 1):
            check(here, url, allowed)
            try:
                async with session.get(here, allow_redirects=False) as response:
                    if response.status in (301, 302, 303, 307, 308) and "Location" in response.headers:
                        here = urljoin(here, response.headers["Location"])
                        continue
                    return await read(response, url)
            except DataError:
                raise
            except aiohttp.InvalidURL as error:
                raise FetchError(f"{url}: {error}", passes=False) from None
            except InsideError as error:
                raise FetchError(f"{url}: {error}", passes=False) from None
            except aiohttp.ClientConnectorError as error:
                if isinstance(error.os_error, InsideError):
                    raise FetchError(f"{url}: {error.os_error}", passes=False) from None
                raise FetchError(f"{url}: can't be reached: {error}", passes=True) from None
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                said = f"has not ended in {SECONDS:.0f} s" if isinstance(error, TimeoutError) else str(error)
                raise FetchError(f"{url}: {said or type(error).__name__}", passes=True) from None
    raise FetchError(f"{url}: is redirected more than {REDIRECTS} times; name where it leads", passes=False)


async def read(response: aiohttp.ClientResponse, url: str) -> Got:
    if response.status != 200:
        passes = response.status == 429 or response.status >= 500
        raise FetchError(f"{url}: is answered with {response.status} {response.reason}", passes=passes)
    kind = kind_of(response.content_type, url, response.url.path)
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(1 << 16):  # as it is unpacked: a small answer may be large inside
        size += len(part)
        if size > MOST_BYTES:
            raise DataError(f"{url}: has more than {MOST_BYTES >> 20} MiB, which are read at most; split it")
        parts.append(part)
    return Got(b"".join(parts), kind, response.charset or "")


def kind_of(content_type: str, url: str, path: str) -> str:
    """As its server says, or where that says nothing, as the URL ends that answered. Raises DataError."""
    ending = PurePosixPath(path).suffix.lower()
    told = content_type.lower()
    if ending in READ and (told in ANY or told == "text/plain"):
        return ending
    if told in KINDS:
        return KINDS[told]
    raise DataError(f"{url}: is {told or 'of no type'}, and {', '.join(KINDS)} are read; leave it out")


def in_utf8(got: Got, url: str) -> bytes:
    if got.kind in PDF or not got.charset:
        return got.data
    try:
        return got.data.decode(got.charset).encode()
    except (LookupError, UnicodeError):
        raise DataError(f"{url}: is not {got.charset}, as its server says") from None


def check(here: str, url: str, allowed: Sequence[Network]) -> None:
    """Raises FetchError. What is written as an address is looked at here: no resolver is asked for it."""
    parts = urlsplit(here)
    leads = "" if here == url else f"leads to {here[:253]}, which "
    if parts.scheme != "https" or not parts.hostname:
        raise FetchError(f"{url}: {leads}is no https:// URL", passes=False)
    try:
        address = ipaddress.ip_address(parts.hostname)
    except ValueError:
        return
    if not outside(address, allowed):
        raise FetchError(f"{url}: {leads}{refusal(str(address))}", passes=False)


def refusal(address: str) -> str:
    return f"is at {address}, inside; add its network to allowedNetworks if it is meant"


class OutsideResolver(AbstractResolver):
    """Names that have an address inside have none."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed, self._real = allowed, ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._real.resolve(host, port, family)
        for one in found:
            if not outside(ipaddress.ip_address(one["host"].partition("%")[0]), self._allowed):
                raise InsideError(refusal(one["host"]))
        return found

    async def close(self) -> None:
        await self._real.close()
