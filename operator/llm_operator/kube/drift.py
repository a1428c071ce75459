"""Which fields of a child that we apply are no longer ours, because somebody has changed or removed them. Pure.

The API server writes into metadata.managedFields who has set each field last. What others add is theirs there and stays
(kubectl rollout restart, labels of a policy engine, an injected container), and what an admission webhook changes in an
apply of ours stays ours: a webhook that always changes a field back is not fought.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llm_operator.api.conditions import seconds_of
from llm_operator.kube.plan import Manifest

FIELD_MANAGER = "llm-operator"
FIELDS = "managedFields"
UNTRACKED = ("name", "namespace")  # of metadata
Keys = tuple[str, ...]  # as fieldsV1 has them: f:spec, k:{"name":"vllm"}


@dataclass(frozen=True)
class Lost:
    """A field that is no longer ours, and who has set it; nobody: it was removed."""

    path: str
    manager: str


def applied(found: Manifest) -> dict[str, Any] | None:
    """The record of what our applies have set and still own."""
    records = found["metadata"].get(FIELDS) or ()
    return next((record for record in records if is_ours(record)), None)


def is_ours(record: dict[str, Any]) -> bool:
    return bool(record.get("manager") == FIELD_MANAGER and record.get("operation") == "Apply")


def applied_at(found: Manifest) -> float | None:
    """When an apply of ours last changed it, by the API server's clock."""
    record = applied(found)
    return seconds_of(record["time"]) if record and record.get("time") else None


def owned(found: Manifest, *keys: str) -> bool:
    """Whether our applies own a field, by its keys in the record."""
    record = applied(found)
    return record is not None and owns(record.get("fieldsV1") or {}, keys)


def ours(found: Manifest) -> Manifest:
    """What our applies have set of an object: applied once more, it changes nothing. Empty if it was never applied."""
    record = applied(found)
    if record is None:
        return {}
    metadata = {field: found["metadata"][field] for field in UNTRACKED}
    kept = owned_part(found, record.get("fieldsV1") or {})
    identity = {"apiVersion": found["apiVersion"], "kind": found["kind"]}
    return {**identity, **kept, "metadata": metadata | kept.get("metadata", {})}


def owned_part(value: Any, fields: dict[str, Any]) -> Any:
    """A record without anything below has all of a value."""
    if isinstance(value, dict) and fields:
        told = {key: fields[f"f:{key}"] for key in value if f"f:{key}" in fields}
        return {key: owned_part(value[key], below) for key, below in told.items()}
    if isinstance(value, list) and fields:
        items = ((item, fields.get(item_key(item, fields))) for item in value)
        return [owned_part(item, below) for item, below in items if below is not None]
    return copy.deepcopy(value)


def lost_fields(wanted: Manifest, found: Manifest) -> Iterator[Lost]:
    """``wanted`` is what we apply, ``found`` the object as it is there."""
    owned = (applied(found) or {}).get("fieldsV1") or {}
    for field in wanted.keys() - {"apiVersion", "kind"}:
        value = wanted[field]
        if field == "metadata":
            value = {key: item for key, item in value.items() if key not in UNTRACKED}
        for keys, path in missing(value, owned.get(f"f:{field}"), (f"f:{field}",), field):
            yield Lost(path, manager_of(keys, found))


def missing(value: Any, owned: dict[str, Any] | None, keys: Keys, path: str) -> Iterator[tuple[Keys, str]]:
    """The topmost fields of a value that the record lacks. A record without anything below has all of it."""
    if owned is None:
        if not vanishes(keys[-1], value):
            yield keys, path
    elif not owned:
        return
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from missing(item, owned.get(f"f:{key}"), (*keys, f"f:{key}"), f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            key = item_key(item, owned)
            yield from missing(item, owned.get(key), (*keys, key), f"{path}[{shown(item)}]")


def vanishes(key: str, value: Any) -> bool:
    """Whether the API server doesn't keep a field with this value: it says nothing."""
    return value is None or value in ("", [], {}) or (key == "f:readOnly" and value is False)


def item_key(item: Any, owned: dict[str, Any]) -> str:
    """The key in the record of an item of a list; what the API server has filled in is not in the item."""
    for key in owned:
        if key.startswith("v:") and json.loads(key[2:]) == item:
            return key
        if key.startswith("k:"):
            told: dict[str, Any] = json.loads(key[2:])
            if all(item.get(field, known) == known for field, known in told.items()):
                return key
    return f"v:{json.dumps(item)}"


def shown(item: Any) -> str:
    return str(next((item[key] for key in ("name", "mountPath", "port", "uid") if key in item), item))


def manager_of(keys: Keys, found: Manifest) -> str:
    """Who owns a field now, such as kubectl-edit, or kube-controller-manager (scale)."""
    for record in found["metadata"].get(FIELDS) or ():
        if not is_ours(record) and owns(record.get("fieldsV1") or {}, keys):
            subresource = record.get("subresource")
            return f"{record.get('manager')}{f' ({subresource})' if subresource else ''}"
    return ""


def owns(owned: dict[str, Any], keys: Keys) -> bool:
    for key in keys:
        if key not in owned:
            return False
        owned = owned[key]
        if not owned:
            return True
    return True
