"""The chat template that a user keeps in a ConfigMap: asked for outside of passes, as no watch tells of it.

The operator watches the ConfigMaps that it makes; to watch those of everybody would cost more than to ask for a few.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from llm_operator.api.serving import ConfigMapKey
from llm_operator.api.text import cut
from llm_operator.kube.client import JSON, METADATA_LIST, ApiError, Client
from llm_operator.kube.fields import text_at
from llm_operator.kube.kinds import CONFIG_MAP
from llm_operator.kube.plan import Key, Manifest
from llm_operator.kube.poller import Poller, Wake

LOOK_SECONDS = 10.0
REQUESTS_AT_ONCE = 4
REQUESTS_PER_SECOND = 20.0


@dataclass(frozen=True)
class Place:
    """A key of a ConfigMap."""

    namespace: str
    name: str
    key: str


@dataclass(frozen=True)
class Word:
    """What is known of it: what it holds, or why it can't be mounted. Neither: it was not asked for yet."""

    digest: str = ""
    problem: str = ""
    version: str = field(default="", compare=False)  # of the ConfigMap that says so


UNKNOWN = Word()


class ChatTemplates:
    """Keeps what each serving's ConfigMap last held."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._poller: Poller[Place, Word] = Poller(
            "chat_templates", self._ask, UNKNOWN, count=REQUESTS_AT_ONCE, per_second=REQUESTS_PER_SECOND
        )

    def follow(self, key: Key, serving: Manifest | None) -> Word:
        """What the ConfigMap of this serving holds; from now on it is asked for."""
        return self._poller.follow(key, place_of(serving) if serving else None)

    async def run(self, wake: Wake) -> None:
        """Until cancelled. Wakes a serving whose template changes."""
        await self._poller.run(wake)

    async def _ask(self, place: Place, before: Word) -> tuple[Word, float]:
        """Reads it when it has changed: it may have 1 MiB, and any number of servings may name one."""
        try:
            if before.version and before.version == version_of(await self._list(place, METADATA_LIST)):
                return before, LOOK_SECONDS
            return read(place, await self._list(place, JSON)), LOOK_SECONDS
        except ApiError as error:
            return unread(place, before, error), LOOK_SECONDS

    async def _list(self, place: Place, accept: str) -> list[Manifest]:
        """Of one, as the right to list is there anyway."""
        query = {"fieldSelector": f"metadata.name={place.name}"}
        found = await self._client.get(CONFIG_MAP.path(place.namespace), query, accept)
        return found.get("items") or []


def place_of(serving: Manifest) -> Place | None:
    """Read from a spec that may be wrong."""
    name, key = (text_at(serving, "spec", "chatTemplate", "configMap", field) for field in ("name", "key"))
    return Place(serving["metadata"]["namespace"], name, key) if name and key else None


def unread(place: Place, before: Word, error: ApiError) -> Word:
    """What was told stands, and no answer tells nothing; but who has never read it says why it is waited for."""
    if before != UNKNOWN or error.status == 0:
        return before
    return Word(problem=f"ConfigMap {place.name} can't be read, and is asked for again: {error.message}")


def read(place: Place, items: list[Manifest]) -> Word:
    if not items:
        return Word(problem=f"ConfigMap {place.name} does not exist; create it or correct spec.chatTemplate.configMap")
    data = {**(items[0].get("data") or {}), **(items[0].get("binaryData") or {})}
    if place.key not in data:
        keys = ", ".join(sorted(data)) or "none"
        problem = f"ConfigMap {place.name} has no key {place.key!r}; its keys are {keys}"
        return Word(problem=cut(problem), version=version_of(items))
    return Word(digest=hashlib.sha256(data[place.key].encode()).hexdigest()[:16], version=version_of(items))


def version_of(items: list[Manifest]) -> str:
    """Of a list of one, or none."""
    return str(items[0]["metadata"]["resourceVersion"]) if items else ""


def mark(source: ConfigMapKey, word: Word, applied: str) -> str | None:
    """What the pods' template says of it; None while it is not known, or not there: no pod would start.

    That changes nothing in the pods that have it mounted, whose mark is ``applied``.
    """
    mine = f"{source.name}/{source.key}@"
    if word.digest:
        return mine + word.digest
    return applied if applied.startswith(mine) else None
