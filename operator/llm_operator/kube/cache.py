"""What the operator knows of the cluster: filled by the watches and by the answers to its own writes.

Two rules keep it right whatever the order in which those arrive: an object is replaced only by a newer one
(resourceVersions of one cluster can be compared as numbers), and a uid that was deleted never comes back.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from llm_operator.api.common import GROUP
from llm_operator.kube import labels
from llm_operator.kube.drift import FIELDS, applied
from llm_operator.kube.kinds import KINDS, POD, SERVING, TRAINING, Kind
from llm_operator.kube.plan import Key, Manifest

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
OWNER_LABELS = {TRAINING.name: labels.TRAINING, SERVING.name: labels.SERVING}
REMEMBERED_DELETIONS = 10_000  # a watch event is late by seconds at most


class Cache:
    """Objects by kind, namespace and name, and the children of each training and serving. Read only for the rooms."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, dict[str, Manifest]]] = defaultdict(dict)
        self._children: dict[tuple[str, Key], set[str]] = defaultdict(set)
        self._deleted: OrderedDict[str, None] = OrderedDict()

    # --- reading -------------------------------------------------------------------------------------------------

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """One object, trimmed to what ``kinds`` says is kept; None if it isn't there."""
        return self._objects[kind].get(namespace, {}).get(name)

    def objects(self, kind: str, namespace: str | None = None) -> Iterator[Manifest]:
        """All objects of a kind, or those of one namespace."""
        spaces = self._objects[kind]
        for space in list(spaces.values()) if namespace is None else [spaces.get(namespace, {})]:
            yield from list(space.values())

    def children(self, kind: str, owner: Key) -> list[Manifest]:
        """Objects with the owner's label, by name; those of an earlier owner of the same name are left out."""
        names = sorted(self._children.get((kind, owner), ()))
        space = self._objects[kind].get(owner.namespace, {})
        current = self.get(owner.kind, owner.namespace, owner.name)
        uid = current["metadata"]["uid"] if current else None
        owned = ((space[name], _owner_uid(space[name], owner.kind)) for name in names)
        # a pod is owned by its Job or ReplicaSet; anything else without an owner is somebody's copy
        return [child for child, its in owned if its == uid or (its is None and _has_controller(child, kind))]

    # --- writing -------------------------------------------------------------------------------------------------

    def put(self, kind: str, manifest: Manifest) -> bool:
        """Keeps the object if it is newer than what is known. True if it was."""
        metadata = manifest["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        known = self.get(kind, namespace, name)
        if metadata["uid"] in self._deleted or (known and _version(manifest) <= _version(known)):
            return False
        self._forget(kind, namespace, name)
        trimmed = trim(KINDS[kind], manifest)
        self._objects[kind].setdefault(namespace, {})[name] = trimmed
        for owner in owners(trimmed):
            self._children[(kind, owner)].add(name)
        return True

    def remove(self, kind: str, manifest: Manifest) -> bool:
        """Forgets a deleted object, for good. True if it was known."""
        metadata = manifest["metadata"]
        self._remember_deletion(metadata["uid"])
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

    def _forget(self, kind: str, namespace: str, name: str) -> None:
        space = self._objects[kind].get(namespace, {})
        known = space.pop(name, None)
        if known and not space:
            del self._objects[kind][namespace]
        for owner in owners(known) if known else ():
            names = self._children[(kind, owner)]
            names.discard(name)
            if not names:
                del self._children[(kind, owner)]

    def _remember_deletion(self, uid: str) -> None:
        self._deleted[uid] = None
        if len(self._deleted) > REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)


def owners(manifest: Manifest) -> Iterator[Key]:
    """The training or serving whose label an object carries."""
    metadata = manifest["metadata"]
    found = metadata.get("labels") or {}
    for kind, label in OWNER_LABELS.items():
        if label in found:
            yield Key(kind, metadata["namespace"], found[label])  # type: ignore[arg-type]


def trim(kind: Kind, manifest: Manifest) -> Manifest:
    """A copy with only what is kept of the kind, its keys shared between all objects: it is what memory goes to."""
    metadata = {name: manifest["metadata"][name] for name in kind.metadata if name in manifest["metadata"]}
    if LAST_APPLIED in metadata.get("annotations", ()):
        metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if k != LAST_APPLIED}
    if applied(manifest):
        metadata[FIELDS] = manifest["metadata"][FIELDS]
    kept: Manifest = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
    for field in kind.kept:
        top, _, below = field.partition(".")
        if not below and top in manifest:
            kept[top] = manifest[top]
        elif below in (manifest.get(top) or {}):
            kept.setdefault(top, {})[below] = manifest[top][below]
    shared: Manifest = _share(kept)
    return shared


def _share(value: Any) -> Any:
    kind = type(value)  # as JSON has no others; isinstance and match take twice as long, and this is done to everything
    if kind is str:
        return sys.intern(value) if len(value) < 64 else value
    if kind is dict:
        return {sys.intern(key): _share(item) for key, item in value.items()}
    if kind is list:
        return [_share(item) for item in value]
    return value


def _version(manifest: Manifest) -> int:
    return int(manifest["metadata"]["resourceVersion"])


def _has_controller(manifest: Manifest, kind: str) -> bool:
    return kind == POD.name and any(
        owner.get("controller") for owner in manifest["metadata"].get("ownerReferences", ())
    )


def _owner_uid(manifest: Manifest, kind: str) -> str | None:
    for reference in manifest["metadata"].get("ownerReferences", ()):
        if reference["kind"] == kind and reference["apiVersion"].startswith(f"{GROUP}/"):
            return str(reference["uid"])
    return None
