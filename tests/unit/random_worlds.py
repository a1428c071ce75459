"""What an operator may find: children that are missing, terminating, foreign, of another clock, half written.

The objects go through the real cache, as if the watches had brought them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from llm_operator.api.conditions import timestamp
from llm_operator.kube.cache import Cache
from llm_operator.kube.plan import Key, Manifest, Plan
from tests.unit.world import START, World

HOUR = 3600.0
TIMES = [timestamp(START + shift) for shift in (-1e8, -HOUR, -5, 0, 5, HOUR, 1e8)]
JUNK = ["", "x", "0", "-1", "1e9", "٣", "a/b", "2026", "True", "{", "[]", "pvc://", "s3://bucket/model", "💥"]
KINDS = ("missing", "terminating", "foreign", "ownerless", "clock", "half", "junk", "label", "status", "half a status")

Damage = tuple[str, int, int, str]
"""What happens, to which object, at which of its places, and what is written there."""
DAMAGES: st.SearchStrategy[list[Damage]] = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 999), st.integers(0, 999), st.sampled_from(JUNK + TIMES)),
    max_size=4,
)


class RandomWorld(World):
    """A world in which an object may belong to somebody else."""

    @property
    def key(self) -> Key:
        metadata = self.owner["metadata"]
        return Key(self.owner["kind"], metadata["namespace"], metadata["name"])

    def cache(self, *others: Manifest) -> Cache:
        """As the watches would have filled it."""
        cache = Cache()
        for version, one in enumerate((*others, *self.objects.values(), self.owner), start=1):
            found = copy.deepcopy(one)
            defaults = {"uid": uid_of(found), "creationTimestamp": timestamp(START)}
            found["metadata"] = {**defaults, **found["metadata"], "resourceVersion": str(version)}
            cache.put(found["kind"], found)
        return cache

    def own_pods(self, above: str) -> None:
        """Pods get the owner that a controller has made them for: a Job, or a ReplicaSet of a Deployment."""
        for (kind, name), pod in self.objects.items():
            made_by = [found for (one, at), found in self.objects.items() if one == above and name.startswith(f"{at}-")]
            if kind == "Pod" and made_by:
                metadata = made_by[-1]["metadata"]
                owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
                if above == "Deployment":
                    owner |= {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{metadata['name']}-5d7c"}
                pod["metadata"]["ownerReferences"] = [{**owner, "controller": True}]

    def is_ours(self, found: Manifest) -> bool:
        owners = {owner["uid"] for owner in found["metadata"].get("ownerReferences") or ()}
        return self.owner["metadata"]["uid"] in owners

    def taken(self, plan: Plan) -> str:
        """What the executor says of the first write that would meet another's object; empty if none does."""
        deleted = {(child.kind, child.name) for child in plan.delete}
        for manifest in (*plan.create, *plan.apply):
            at = (manifest["kind"], manifest["metadata"]["name"])
            if at in self.objects and at not in deleted and not self.is_ours(self.objects[at]):
                return f"{at[0]} {at[1]}: the name is taken"
        return ""

    def check(self, plan: Plan) -> None:
        """Nothing that is not ours is deleted."""
        for child in plan.delete:
            found = self.objects.get((child.kind, child.name))
            assert found is None or uid_of(found) != child.uid or self.is_ours(found), f"{child} is not ours"

    def let_go(self) -> bool:
        """What was being deleted is gone. Whether anything was."""
        going = [at for at, found in self.objects.items() if found["metadata"].get("deletionTimestamp")]
        for at in going:
            del self.objects[at]
        return bool(going)

    def damage(self, what: str, which: int, where: int, value: str) -> None:
        """Something that the API server allows, if it can happen to this world."""
        if what in ("status", "half a status"):
            found = self.owner
        elif self.objects:
            found = self.objects[sorted(self.objects)[which % len(self.objects)]]
        else:
            return
        metadata, places = found["metadata"], list(places_below(found.get("status") or {}))
        match what:
            case "missing":
                del self.objects[found["kind"], metadata["name"]]
            case "terminating":
                metadata["deletionTimestamp"] = value if value in TIMES else TIMES[3]
            case "foreign":
                metadata["ownerReferences"] = [
                    {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "web", "controller": True}
                ]
            case "ownerless":
                metadata.pop("ownerReferences", None)
            case "clock":
                metadata["creationTimestamp"] = value if value in TIMES else TIMES[-1]
                for parent, key in places:
                    if str(key).endswith(("Time", "At")):
                        parent[key] = TIMES[where % len(TIMES)]
            case "half" | "half a status" if places:
                parent, key = places[where % len(places)]
                del parent[key]
            case "junk" | "status" if places:
                parent, key = places[where % len(places)]
                if isinstance(parent[key], str):
                    parent[key] = value
            case "label" if metadata.get("labels"):
                metadata["labels"][sorted(metadata["labels"])[where % len(metadata["labels"])]] = value


def uid_of(found: Manifest) -> str:
    metadata = found["metadata"]
    return str(metadata.get("uid") or f"uid-{found['kind']}-{metadata['name']}")


def places_below(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in it: its parent and its key there, parents first."""
    places = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in list(places):
        yield value, key
        yield from places_below(below)
