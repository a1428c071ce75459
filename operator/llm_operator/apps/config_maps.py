"""The ConfigMaps of an app's knowledge, questions and tools: asked for outside of passes, as no watch tells of them.

The operator watches the ConfigMaps that it makes; to watch those of everybody would cost more than to ask for a few.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import nsmallest

from llm_app.tools.openapi import DocumentError, operations
from llm_operator.api.text import cut
from llm_operator.kube.client import JSON, METADATA_LIST, ApiError, Client
from llm_operator.kube.fields import object_at, objects_at, text_at, texts_at
from llm_operator.kube.kinds import CONFIG_MAP
from llm_operator.kube.plan import Key, Manifest
from llm_operator.kube.poller import Poller, Wake
from llm_operator.kube.templates import digest_of

LOOK_SECONDS = 10.0
REQUESTS_AT_ONCE = 4
REQUESTS_PER_SECOND = 20.0
MOST, MOST_KEYS = 161, 1024  # of an app, and of a ConfigMap in it, which is what a spec may name
MOST_DOCUMENTS, MOST_NAMES, PROBLEM_BYTES = 32, 32, 512  # of OpenAPI; operations or headers of one
SHOWN = 3
NAME = re.compile(r"[a-z0-9][-.a-z0-9]{0,252}")


@dataclass(frozen=True)
class Document:
    """One of OpenAPI that a tool names, with the operations that are wanted and the headers that are known."""

    config_map: str
    key: str
    operations: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Content:
    """``digest`` of all its data, and ``keys`` → digest of those that the spec names; ``some`` are the first it has.
    ``refused``: of documents, what is wrong with them.

    Not of every key: a ConfigMap has room for 150,000, and any number of apps may name it. None of all: it was not
    asked for yet.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    some: tuple[str, ...] = ()
    problem: str = ""
    refused: Mapping[Document, str] = field(default_factory=dict)
    version: str = field(default="", compare=False)

    @property
    def known(self) -> bool:
        return bool(self.digest or self.problem)


Contents = Mapping[str, Content]


@dataclass(frozen=True)
class Place:
    """The ConfigMaps of one app, the keys of each that it names, and which of them are documents of tools."""

    namespace: str
    keys: tuple[tuple[str, frozenset[str]], ...]
    documents: tuple[Document, ...] = ()


class ConfigMaps:
    """Keeps what each app's ConfigMaps last held."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._poller: Poller[Place, Contents] = Poller(
            "app_sources", self._ask, {}, count=REQUESTS_AT_ONCE, per_second=REQUESTS_PER_SECOND
        )

    def follow(self, key: Key, app: Manifest | None) -> Contents:
        """What this app's ConfigMaps hold, by name; from now on they are asked for."""
        named = named_in(app) if app else ()
        return self._poller.follow(key, Place(key.namespace, named, documents_in(app or {})) if named else None)

    async def run(self, wake: Wake) -> None:
        """Until cancelled. Wakes an app whose ConfigMaps change."""
        await self._poller.run(wake)

    async def _ask(self, place: Place, before: Contents) -> tuple[Contents, float]:
        told: dict[str, Content] = {}
        for name, keys in place.keys:
            if told:
                await self._poller.turn()
            told[name] = await self._look(place, name, keys, before.get(name))
        return told, LOOK_SECONDS

    async def _look(self, place: Place, name: str, keys: frozenset[str], before: Content | None) -> Content:
        """Reads it when it has changed: it may have 1 MiB."""
        namespace = place.namespace
        try:
            if (
                before
                and before.version
                and before.version == version_of(await self._list(namespace, name, METADATA_LIST))
            ):
                return before
            items = await self._list(namespace, name, JSON)
            found = read(name, keys, items)
            documents = [one for one in place.documents if one.config_map == name]
            # a document may take a second, in which the loop has others' turn
            return replace(found, refused=await asyncio.to_thread(refused, documents, items)) if documents else found
        except ApiError as error:  # what was told stands, and no answer tells nothing
            if (before and before.known) or error.status == 0:
                return before or Content()
            return Content(problem=f"ConfigMap {name} can't be read, and is asked for again: {error.message}")

    async def _list(self, namespace: str, name: str, accept: str) -> list[Manifest]:
        """Of one, as the right to list is there anyway."""
        found = await self._client.get(CONFIG_MAP.path(namespace), {"fieldSelector": f"metadata.name={name}"}, accept)
        return found.get("items") or []


def named_in(app: Manifest) -> tuple[tuple[str, frozenset[str]], ...]:
    """Of each ConfigMap the keys that a spec, which may be wrong, names; not of what no ConfigMap can be called."""
    found: dict[str, set[str]] = {}
    for source in sources_in(app):
        named = object_at(source, "configMap")
        name = text_at(named, "name")
        if not NAME.fullmatch(name):
            continue
        if name not in found and len(found) == MOST:
            break
        keys = texts_at(named, "keys") if "keys" in named else [text_at(named, "key")]
        found.setdefault(name, set()).update(filter(None, keys[:MOST_KEYS]))
    return tuple((name, frozenset(keys)) for name, keys in found.items())


def sources_in(app: Manifest) -> Iterator[Manifest]:
    """Of knowledge, of an evaluation's questions, and of tools."""
    for tool in objects_at(app, "spec", "tools"):
        yield object_at(tool, "openapi")
    yield object_at(app, "spec", "evaluation", "questions")
    for knowledge in objects_at(app, "spec", "knowledge"):
        yield from objects_at(knowledge, "sources")


def documents_in(app: Manifest) -> tuple[Document, ...]:
    """Of a spec, which may be wrong."""
    found: list[Document] = []
    for tool in objects_at(app, "spec", "tools")[:MOST_DOCUMENTS]:
        openapi = object_at(tool, "openapi")
        name, key = (text_at(openapi, "configMap", field) for field in ("name", "key"))
        if name and key:
            headers = [text_at(one, "name") for one in objects_at(openapi, "headers")]
            operations = texts_at(openapi, "operations")
            found.append(Document(name, key, tuple(operations[:MOST_NAMES]), tuple(headers[:MOST_NAMES])))
    return tuple(found)


def refused(documents: Sequence[Document], items: list[Manifest]) -> dict[Document, str]:
    """What is wrong with those that are there."""
    data = (items[0].get("data") or {}) if items else {}
    told: dict[Document, str] = {}
    for one in documents:
        try:
            if one.key in data:
                operations(data[one.key], one.operations, one.headers)
        except DocumentError as error:
            told[one] = cut(str(error), PROBLEM_BYTES)
    return told


def read(name: str, keys: Collection[str], items: list[Manifest]) -> Content:
    if not items:
        return Content(problem=f"ConfigMap {name} does not exist; create it, or correct the spec")
    data: dict[str, str] = items[0].get("data") or {}
    if not data:
        return Content(problem=f"ConfigMap {name} has no data; put documents into it", version=version_of(items))
    named = {key: digest_of(data[key]) for key in sorted(keys) if key in data}
    return Content(named, digest_of(data), tuple(nsmallest(SHOWN, data)), version=version_of(items))


def version_of(items: list[Manifest]) -> str:
    """Of a list of one, or none."""
    return str(items[0]["metadata"]["resourceVersion"]) if items else ""
