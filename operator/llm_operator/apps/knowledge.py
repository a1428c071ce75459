"""How each knowledge base stands: which revision is wanted, which is in use, what its Job says. Pure.

A revision is the hash of all that it is made of. Its Job is the record of it: one that is complete has made the
revision, and one that failed stays, so that it is not tried for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_operator.api.app import LLMAppSpec, LLMAppStatus
from llm_operator.api.knowledge import KnowledgeBase, KnowledgeStatus, KnowledgeStore
from llm_operator.api.reasons import Reason
from llm_operator.apps import names
from llm_operator.apps.config_maps import Content, Contents
from llm_operator.apps.embedding import Embedder, embedder_of
from llm_operator.apps.observe import Observed
from llm_operator.kube import labels
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import condition_of, container_status, held_up, holds, last_line, where
from llm_operator.kube.templates import digest_of
from llm_trainer.config import claim_of
from llm_trainer.protocol import ExitCode

FORMAT = 2  # of an index; another one is another revision
FAILURES = {
    ExitCode.NO_SPACE: "the claim of spec.storage is full; make room in it",
    ExitCode.STORAGE: "the claim can't be read or written",
    ExitCode.INTERNAL: "its log has more",
}
SHOWN = 3
COUNTS = ("documents", "chunks", "dimensions")
POSTGRES, CHROMA = "pgvector://", "chroma://"  # PLACE.DIGEST/OWNER/KNOWLEDGE/REVISION
PLACE = re.compile(
    r"(?P<scheme>pvc|pgvector|chroma)://[a-zA-Z0-9_][-_a-zA-Z0-9.]{0,252}/(?P<path>[^\x00-\x20]{1,1024})/[0-9a-f]{12}(-[0-9]{1,20})?"
)


class Word(BaseModel):
    """The last word of an index pod."""

    model_config = ConfigDict(extra="ignore")
    documents: int | None = Field(default=None, ge=0, lt=2**63)
    chunks: int | None = Field(default=None, ge=0, lt=2**63)
    dimensions: int | None = Field(default=None, ge=0, lt=2**31)
    embedded: int | None = Field(default=None, ge=0, lt=2**63)
    same: str = Field(default="", pattern=r"^[0-9a-f-]{0,40}$")
    problem: str = ""
    empty: list[str] = Field(default_factory=list)
    not_read: dict[str, int] = Field(default_factory=dict, alias="notRead")


@dataclass(frozen=True)
class Base:
    """One knowledge base. ``wanted``: its newest revision, empty while what it is made of isn't known or not there.

    ``uri``: the folder of the revision that is used, empty if there is none. ``makes``: its Job is to be there.
    """

    spec: KnowledgeBase
    reason: Reason
    message: str
    wanted: str = ""
    uri: str = ""
    makes: bool = False
    job: Manifest | None = None
    word: Word | None = None
    embedder: Embedder | None = None
    until: float | None = None  # seconds since the epoch, when it is to be read again
    elsewhere: bool = False  # its uri is in a store that the spec had before: new pods could not open it

    @property
    def is_newest(self) -> bool:
        return self.reason == Reason.INDEXED


def bases(observed: Observed, spec: LLMAppSpec, old: LLMAppStatus, now: float) -> tuple[Base, ...]:
    used = folders_in_use(observed, old)
    return tuple(base_of(observed, spec, one, used.get(one.name, ""), now) for one in spec.knowledge)


def base_of(observed: Observed, spec: LLMAppSpec, knowledge: KnowledgeBase, used: str, now: float) -> Base:
    embedder = embedder_of(knowledge, observed.embedders)
    elsewhere = is_elsewhere(observed.app, spec, knowledge, used)
    base = Base(knowledge, Reason.INDEXING, "its Job is made", uri=used, embedder=embedder, elsewhere=elsewhere)
    if problem := missing(observed, spec, knowledge):
        return replace(base, reason=problem[0], message=problem[1])
    if waits := [name for name in config_maps(knowledge) if not observed.sources.get(name, Content()).known]:
        return replace(base, message=f"ConfigMap {waits[0]} is not known yet")
    if embedder and not embedder.settings:
        return replace(base, reason=embedder.reason, message=embedder.message)
    made_of = revision_of(observed.app, spec, knowledge, observed.sources, embedder)
    wanted, until = of_period(observed, knowledge, made_of, now)
    job = job_of(observed, knowledge.name, wanted)
    base = replace(base, wanted=wanted, until=until, makes=True, job=job)
    if job is None:
        if embedder and not embedder.holds:  # it would only be tried until it is given up
            return replace(base, reason=embedder.reason, message=embedder.message, makes=False)
        return base
    if not holds(job, "Complete"):
        reason, message = progress(observed, job, Reason.INDEXING, Reason.INDEX_FAILED)
        return replace(base, reason=reason, message=message)
    word, folder = read_word(last_message(observed, job)), folder_of(observed.app, spec, knowledge.name)
    # Nothing has changed, so nothing is rolled out. If the pod's word has gone, the new name leads to the same.
    uri = used if word and word.same and used == f"{folder}/{word.same}" else f"{folder}/{wanted}"
    return replace(base, reason=Reason.INDEXED, message=indexed(word), uri=uri, word=word, elsewhere=False)


def of_period(observed: Observed, knowledge: KnowledgeBase, made_of: str, now: float) -> tuple[str, float | None]:
    """The revision that is wanted now, and until when. A Job that has not ended is not given up for the next one."""
    if knowledge.refresh_seconds is None:
        return made_of, None
    offset = int(digest_of(observed.app["metadata"]["uid"])[:8], 16) % knowledge.refresh_seconds  # not all at once
    period = int(now + offset) // knowledge.refresh_seconds
    running = [
        revision
        for job in observed.jobs
        for name, revision in (made_by(job),)
        if name == knowledge.name and revision.startswith(f"{made_of}-") and not ended(job)
    ]
    until = float((period + 1) * knowledge.refresh_seconds - offset)
    return (max(running) if running else f"{made_of}-{period}"), until


def ended(job: Manifest) -> bool:
    return holds(job, "Complete") or holds(job, "Failed")


def missing(observed: Observed, spec: LLMAppSpec, knowledge: KnowledgeBase) -> tuple[Reason, str] | None:
    """What its Job could not even mount."""
    for claim in claims_of(spec, knowledge):
        if claim not in observed.claims:
            said = f"PersistentVolumeClaim {claim} does not exist; create it, or correct the spec"
            return Reason.CLAIM_NOT_FOUND, said
    for source in knowledge.sources:
        named = source.config_map
        content = observed.sources.get(named.name) if named else None
        if content and content.problem:
            return Reason.SOURCE_NOT_FOUND, content.problem
        if named and content and content.known and (absent := [key for key in named.keys if key not in content.keys]):
            there = ", ".join(content.some)
            said = f"ConfigMap {named.name} has no key {absent[0]!r}; its keys are {there}"
            return Reason.SOURCE_NOT_FOUND, said
    return None


def config_maps(knowledge: KnowledgeBase) -> Iterator[str]:
    return (source.config_map.name for source in knowledge.sources if source.config_map)


def claims_of(spec: LLMAppSpec, knowledge: KnowledgeBase) -> list[str]:
    """That of the storage first, each once."""
    named = [spec.storage.persistent_volume_claim.claim_name] if spec.storage and not knowledge.store else []
    named += [str(claim_of(source.uri)) for source in knowledge.sources if source.uri]
    return list(dict.fromkeys(named))


def revision_of(
    app: Manifest, spec: LLMAppSpec, knowledge: KnowledgeBase, sources: Contents, embedder: Embedder | None
) -> str:
    """Of what it is made of, and where it is kept; of this app alone, so that no two name a Job alike.

    With all that its Job is told: a Job is never made again with other words.
    """
    made_of = knowledge.model_dump(mode="json", exclude={"retrieval", "embedding", "refresh_seconds"})
    settings = embedder.settings.model_dump(mode="json") if embedder and embedder.settings else None
    digests = {
        source.name: [content.keys[key] for key in source.config_map.keys] or content.digest
        for source in knowledge.sources
        if source.config_map and (content := sources[source.config_map.name])
    }
    return digest_of([FORMAT, made_of, digests, settings, folder_of(app, spec, knowledge.name)])[:12]


def storage_of(spec: LLMAppSpec) -> str:
    return spec.storage.persistent_volume_claim.claim_name if spec.storage else ""


def folder_of(app: Manifest, spec: LLMAppSpec, knowledge: str) -> str:
    """Of all its revisions. Of a database: what is so called."""
    base = next((one for one in spec.knowledge if one.name == knowledge), None)
    if base and base.store:
        return f"{place_of(base.store)}/{owner_of(app)}/{knowledge}"
    return f"pvc://{storage_of(spec)}/{path_of(app, knowledge)}"


def place_of(store: KnowledgeStore) -> str:
    """By all that the spec says of it: pods are told how to reach one store, and look for their revisions there."""
    said = digest_of(store.model_dump(mode="json"))[:8]
    if store.chroma:
        return f"{CHROMA}{store.chroma.database}.{said}"
    assert store.pgvector  # noqa: S101 -- exactly one is set
    return f"{POSTGRES}{store.pgvector.schema_name}.{said}"


def is_elsewhere(app: Manifest, spec: LLMAppSpec, knowledge: KnowledgeBase, used: str) -> bool:
    """Whether a revision is in another store than the spec has now. Any claim is none, as pods can mount it."""
    if not used:
        return False
    if knowledge.store is None:
        return claim_of(used) is None
    return used.rpartition("/")[0] != folder_of(app, spec, knowledge.name)


def path_of(app: Manifest, knowledge: str) -> str:
    """Of all its revisions in a claim; of this app alone, also when another one had its name."""
    metadata = app["metadata"]
    return f"llm-apps/{metadata['name']}-{metadata['uid'][:8]}/{knowledge}"


def owner_of(app: Manifest) -> str:
    """Of this app alone, in all clusters."""
    return str(app["metadata"]["uid"])


def folders_in_use(observed: Observed, old: LLMAppStatus) -> dict[str, str]:
    """Of each knowledge base, the revision that the pods have; by the status if the Deployment is gone."""
    template = ((observed.deployment.get("spec") or {}).get("template") or {}).get("metadata") or {}
    annotation = (template.get("annotations") or {}).get(names.KNOWLEDGE)
    told = {one.name: one.uri for one in old.knowledge} if annotation is None else read_folders(annotation)
    return {name: uri for name, uri in told.items() if is_ours(observed.app, name, uri)}


def read_folders(text: str) -> dict[str, Any]:
    """Of an annotation, which anybody may write."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def is_ours(app: Manifest, knowledge: str, uri: object) -> bool:
    """Whether the operator itself would put an index there. Pods mount the claim of the folder, so no other counts."""
    found = PLACE.fullmatch(uri) if isinstance(uri, str) else None
    if found is None:
        return False
    kept = path_of(app, knowledge) if found["scheme"] == "pvc" else f"{owner_of(app)}/{knowledge}"
    return found["path"] == kept


# --- its Job ---------------------------------------------------------------------------------------------------------


def job_of(observed: Observed, knowledge: str, revision: str) -> Manifest | None:
    return next((job for job in observed.jobs if made_by(job) == (knowledge, revision)), None)


def made_by(job: Manifest) -> tuple[str, str]:
    """The knowledge base and the revision that an index Job is about."""
    told: Mapping[str, str] = job["metadata"].get("labels") or {}
    return told.get(labels.KNOWLEDGE, ""), told.get(names.REVISION, "")


def progress(observed: Observed, job: Manifest, going: Reason, failed: Reason) -> tuple[Reason, str]:
    """Of a Job that is not complete: one of the two reasons, or what holds up its pod."""
    name, pods = job["metadata"]["name"], pods_of(observed, job)
    if holds(job, "Failed"):
        condition = condition_of(job, "Failed") or {}
        ended = [said for pod in pods if (said := failure(pod))]
        cause = ended[-1] if ended else str(condition.get("message") or "its Job failed")
        return failed, f"{cause}; correct it, or delete Job {name} to try again"
    for pod in reversed(pods):
        if waiting := held_up(pod, names.CONTAINER):
            return waiting.reason, waiting.message
        if said := failure(pod):
            return going, f"it is tried again: {said}"
    return going, f"Job {name} runs"


def pods_of(observed: Observed, job: Manifest) -> list[Manifest]:
    """By age."""
    uid = job["metadata"]["uid"]
    found = [p for p in observed.pods if any(o.get("uid") == uid for o in p["metadata"].get("ownerReferences", ()))]
    return sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))


def failure(pod: Manifest) -> str:
    """How the container of a pod ended badly; empty if it didn't."""
    state = (container_status(pod, names.CONTAINER).get("state") or {}).get("terminated") or {}
    code = state.get("exitCode")
    if not code:
        told = pod.get("status") or {}
        return f"{where(pod)}: {told.get('reason')}: {told.get('message')}" if told.get("phase") == "Failed" else ""
    if state.get("reason") == "OOMKilled":
        return f"{where(pod)} had too little memory; raise spec.resources.limits.memory"
    message = str(state.get("message") or "")
    word = read_word(message)
    said = (word.problem if word else last_line(message)) or str(state.get("reason") or "it says nothing")
    more = FAILURES.get(code)
    return f"{where(pod)}: {said}" + (f" ({more})" if more else "")


def last_message(observed: Observed, job: Manifest) -> str:
    """Of the pod that ended well; empty if it is gone."""
    for pod in pods_of(observed, job):
        state = (container_status(pod, names.CONTAINER).get("state") or {}).get("terminated") or {}
        if state.get("exitCode") == 0:
            return str(state.get("message") or "")
    return ""


def read_word(message: str) -> Word | None:
    try:
        return Word.model_validate_json(message)
    except ValidationError:
        return None


def indexed(word: Word | None) -> str:
    if word is None or word.documents is None:
        return "the newest revision is indexed"
    said = f"{word.documents} documents in {word.chunks} chunks"
    if word.embedded is not None:
        said += f", {word.embedded} of them newly embedded"
    if word.same:
        said += "; nothing has changed"
    if word.empty:
        said += f"; without a text: {', '.join(word.empty[:SHOWN])}"
    if word.not_read:
        said += f"; not read: {', '.join(f'{count} files of {kind}' for kind, count in word.not_read.items())}"
    return said


def status_of(base: Base, old: LLMAppStatus) -> KnowledgeStatus:
    before = next((one for one in old.knowledge if one.name == base.spec.name), None)
    same = before is not None and before.uri == base.uri
    counts: dict[str, Any] = dict.fromkeys(COUNTS)
    if base.word and base.is_newest:
        counts = {field: getattr(base.word, field) for field in COUNTS}
    elif before and same:
        counts = {field: getattr(before, field) for field in COUNTS}
    return KnowledgeStatus(
        name=base.spec.name,
        revision=base.wanted,
        active_revision=base.uri.rpartition("/")[2],
        uri=base.uri,
        job=base.job["metadata"]["name"] if base.job else "",
        reason=str(base.reason),
        message=base.message,
        **counts,
    )
