"""What the operator knows of the cluster: filled by the watches and by the answers to its own writes.

Two rules keep it right whatever the order in which those arrive: an object is replaced only by a newer one
(resourceVersions of one cluster can be compared as numbers), and a uid that was deleted never comes back.

Whose child an object is, is told by owner references and their uids alone; a label makes none. It is decided here, for
all rooms.
"""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple

from llm_operator.api.common import GROUP
from llm_operator.kube.decoding import MOST_DEEP, TOO_DEEP
from llm_operator.kube.drift import FIELDS, applied
from llm_operator.kube.kinds import APP, DEPLOYMENT, JOB, KINDS, POD, SERVING, TRAINING, Kind
from llm_operator.kube.plan import Key, Manifest

logger = logging.getLogger(__name__)

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
REMEMBERED_DELETIONS = 10_000  # a watch event is late by seconds at most
REPLICA_SET = "ReplicaSet"  # not watched: its name is that of its Deployment and a hash
HASH_LABEL = "pod-template-hash"
OWNERS = (TRAINING.name, SERVING.name, APP.name)


Places = Callable[[Manifest], Iterable[Hashable]]
"""What an object is found under beside its name. Its namespace is part of each place."""


Uid = tuple[str, str]
"""A namespace and a uid. An owner reference is about its own namespace, but anybody may write any uid into one."""


class Owner(NamedTuple):
    """The training, serving or app that an object belongs to."""

    key: Key
    uid: Uid


class Cache:
    """Objects by kind, namespace and name, and the children of each of ours. Read only for the rooms."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, dict[str, Manifest]]] = defaultdict(dict)
        self._below: dict[tuple[str, Hashable], set[str]] = defaultdict(set)  # names, by kind and who they are below
        self._jobs: dict[Uid, dict[Uid, None]] = defaultdict(dict)  # by their owner's, those with late pods too
        self._owner_of_job: dict[Uid, Owner] = {}
        self._deleted: OrderedDict[Uid, None] = OrderedDict()
        self._indexes: dict[str, Places] = {}

    def index(self, kind: str, places: Places) -> None:
        """From now on ``at`` finds the objects of this kind also at these places."""
        known = list(self.objects(kind))
        self._indexes[kind] = places
        for manifest in known:
            self._enter(kind, manifest)

    # --- reading -------------------------------------------------------------------------------------------------

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """One object, trimmed to what ``kinds`` says is kept; None if it isn't there."""
        return self._objects[kind].get(namespace, {}).get(name)

    def objects(self, kind: str, namespace: str | None = None) -> Iterator[Manifest]:
        """All objects of a kind, or those of one namespace."""
        spaces = self._objects[kind]
        for space in list(spaces.values()) if namespace is None else [spaces.get(namespace, {})]:
            yield from list(space.values())

    def at(self, kind: str, namespace: str, place: Hashable) -> list[Manifest]:
        """Those of a namespace that ``index`` says are there, by name."""
        return [self._objects[kind][namespace][name] for name in sorted(self._below.get((kind, place), ()))]

    def children(self, kind: str, owner: Key) -> list[Manifest]:
        """What has an owner reference to this object as it is now, by name; pods by their Job or ReplicaSet."""
        current = self.get(owner.kind, owner.namespace, owner.name)
        if current is None:
            return []
        uid = uid_of(current)
        above: list[Hashable] = [uid]
        if kind == POD.name:
            above = list(self._jobs.get(uid, ()))
            above += [(owner.namespace, name) for name in self._below.get((DEPLOYMENT.name, uid), ())]
        names = sorted({name for one in above for name in self._below.get((kind, one), ())})
        return [self._objects[kind][owner.namespace][name] for name in names]

    def job_uids(self, owner: Key) -> list[str]:
        """Of the Jobs of a training as it is now, those among them that went a short time ago."""
        current = self.get(owner.kind, owner.namespace, owner.name)
        return [job for _, job in self._jobs.get(uid_of(current), ())] if current else []

    def owner(self, manifest: Manifest) -> Key | None:
        """The training, serving or app whose child an object is, whether that still exists or not."""
        if owner := owner_of(manifest):
            return owner.key
        above = controller_of(manifest)
        if isinstance(above, tuple):
            deployment = self.get(DEPLOYMENT.name, *above)
            return self.owner(deployment) if deployment else None
        found = self._owner_of_job.get((manifest["metadata"]["namespace"], above)) if above else None
        return found.key if found else None

    # --- writing -------------------------------------------------------------------------------------------------

    def put(self, kind: str, manifest: Manifest) -> bool:
        """Keeps the object if it is newer than what is known. True if it was."""
        metadata = manifest["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        known = self.get(kind, namespace, name)
        if uid_of(manifest) in self._deleted or (known and _version(manifest) <= _version(known)):
            return False
        trimmed = trim(KINDS[kind], manifest)
        self._forget(kind, namespace, name)
        self._objects[kind].setdefault(namespace, {})[name] = trimmed
        self._enter(kind, trimmed)
        if kind == JOB.name:
            self._forget_job(uid_of(manifest))
            if owner := owner_of(trimmed):
                self._jobs[owner.uid][uid_of(manifest)] = None
                self._owner_of_job[uid_of(manifest)] = owner
        return True

    def remove(self, kind: str, manifest: Manifest) -> bool:
        """Forgets a deleted object, for good. True if it was known."""
        metadata = manifest["metadata"]
        self._remember_deletion(uid_of(manifest))
        known = self.get(kind, metadata["namespace"], metadata["name"])
        if known is None or known["metadata"]["uid"] != metadata["uid"]:
            return False
        self._forget(kind, metadata["namespace"], metadata["name"])
        return True

    def keep_only(self, kind: str, namespace: str | None, uids: Iterable[str], as_of: int) -> list[Manifest]:
        """Removes what a complete list, taken at resourceVersion ``as_of``, no longer has, and returns it.

        A watch that had to start anew says nothing of what was deleted in between.
        """
        alive = set(uids)
        gone = [
            known
            for known in self.objects(kind, namespace)
            if known["metadata"]["uid"] not in alive and _version(known) <= as_of
        ]
        for known in gone:
            self.remove(kind, known)
        return gone

    def clear(self, kind: str, namespace: str | None) -> None:
        """Forgets all of a kind, and which uids were deleted: the cluster has gone back in time."""
        for known in list(self.objects(kind, namespace)):
            self._forget(kind, known["metadata"]["namespace"], known["metadata"]["name"])
        while self._deleted:
            self._forget_job(self._deleted.popitem()[0])

    def _places(self, kind: str, manifest: Manifest) -> Iterator[Hashable]:
        yield from places(manifest)
        if kind not in self._indexes:
            return
        try:
            yield from list(self._indexes[kind](manifest))
        except Exception:  # an object that can't be read is found by its name alone; it must not end a watch
            logger.exception("%s %s: where it is to be found", kind, manifest["metadata"]["name"])

    def _enter(self, kind: str, manifest: Manifest) -> None:
        for place in self._places(kind, manifest):
            self._below[(kind, place)].add(manifest["metadata"]["name"])

    def _forget(self, kind: str, namespace: str, name: str) -> None:
        space = self._objects[kind].get(namespace, {})
        known = space.pop(name, None)
        if known and not space:
            del self._objects[kind][namespace]
        for above in self._places(kind, known) if known else ():
            names = self._below[(kind, above)]
            names.discard(name)
            if not names:
                del self._below[(kind, above)]

    def _remember_deletion(self, uid: Uid) -> None:
        self._deleted[uid] = None
        if len(self._deleted) > REMEMBERED_DELETIONS:
            self._forget_job(self._deleted.popitem(last=False)[0])

    def _forget_job(self, uid: Uid) -> None:
        """Of a deleted one only when the news of its last pod must have come."""
        owner = self._owner_of_job.pop(uid, None)
        if owner and (jobs := self._jobs.get(owner.uid)):
            jobs.pop(uid, None)
            if not jobs:
                del self._jobs[owner.uid]


def uid_of(manifest: Manifest) -> Uid:
    return manifest["metadata"]["namespace"], manifest["metadata"]["uid"]


def owner_of(manifest: Manifest) -> Owner | None:
    """By the object's own reference to a training, serving or app."""
    for reference in manifest["metadata"].get("ownerReferences", ()):
        if reference["kind"] in OWNERS and reference["apiVersion"].startswith(f"{GROUP}/"):
            namespace = manifest["metadata"]["namespace"]
            return Owner(Key(reference["kind"], namespace, reference["name"]), (namespace, reference["uid"]))
    return None


def controller_of(manifest: Manifest) -> str | tuple[str, str] | None:
    """Of a pod: the uid of its Job, or the namespace and name of its ReplicaSet's Deployment."""
    metadata = manifest["metadata"]
    for reference in metadata.get("ownerReferences", ()):
        if not reference.get("controller"):
            continue
        if (reference["kind"], reference["apiVersion"]) == (JOB.name, JOB.api_version):
            return str(reference["uid"])
        tail = f"-{(metadata.get('labels') or {}).get(HASH_LABEL)}"
        if reference["kind"] == REPLICA_SET and reference["name"].endswith(tail):
            return metadata["namespace"], reference["name"].removesuffix(tail)
    return None


def places(manifest: Manifest) -> Iterator[Hashable]:
    """What an object is found below, in its namespace."""
    if owner := owner_of(manifest):
        yield owner.uid
    if above := controller_of(manifest):
        yield above if isinstance(above, tuple) else (manifest["metadata"]["namespace"], above)


def trim(kind: Kind, manifest: Manifest) -> Manifest:
    """A copy with only what is kept of the kind, its keys shared between all objects: it is what memory goes to.

    Others have written it: what must be an object is one or is left out, and nothing nests deeper than what is used.
    """
    metadata = {name: manifest["metadata"][name] for name in kind.metadata if name in manifest["metadata"]}
    if LAST_APPLIED in metadata.get("annotations", ()):
        metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if k != LAST_APPLIED}
    if applied(manifest):
        metadata[FIELDS] = manifest["metadata"][FIELDS]
    kept: Manifest = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
    for field in kind.kept:
        top, _, below = field.partition(".")
        found = manifest.get(top)
        if not isinstance(found, dict):
            continue
        if not below:
            kept[top] = found
        elif below in found:
            kept.setdefault(top, {})[below] = found[below]
    shared: Manifest = _share(kept)
    return shared


def _share(value: Any, deeper: int = MOST_DEEP) -> Any:
    """``deeper``: levels that may follow."""
    kind = type(value)  # as JSON has no others; isinstance and match take twice as long, and this is done to everything
    if kind is str:
        return sys.intern(value) if len(value) < 64 else value
    if kind is dict:
        return {sys.intern(key): _share(item, deeper - 1) for key, item in value.items()} if deeper else TOO_DEEP
    if kind is list:
        return [_share(item, deeper - 1) for item in value] if deeper else TOO_DEEP
    return value


def _version(manifest: Manifest) -> int:
    return int(manifest["metadata"]["resourceVersion"])
