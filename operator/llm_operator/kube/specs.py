"""Specs as they were validated: most passes are over an object whose spec is the same as before."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from llm_operator.api.validation import InvalidSpecError
from llm_operator.kube.plan import Manifest

Spec = TypeVar("Spec")
REMEMBERED_BYTES = 4 << 20  # of JSON; a usual spec has two thousand, and takes some ten times that once it is read


class Specs(Generic[Spec]):
    """What follows from a spec, which an object's uid and generation identify: it is validated once.

    Those used last are kept, as many as have so many bytes, and the last one whatever it has. Validation takes 50 ms of
    the largest object that the API server takes, which delays no Lease.
    """

    def __init__(self, load: Callable[[object], Spec], most: int = REMEMBERED_BYTES) -> None:
        self._load, self._most = load, most
        self._known: OrderedDict[tuple[str, int], tuple[Spec | InvalidSpecError, int]] = OrderedDict()
        self._bytes = 0

    def of(self, owner: Manifest) -> Spec | InvalidSpecError:
        """The spec, or what is wrong with it."""
        metadata = owner["metadata"]
        at = (metadata["uid"], metadata["generation"])
        if at not in self._known:
            spec = owner.get("spec") or {}
            found = loaded(self._load, spec)
            size = len(str(found) if isinstance(found, InvalidSpecError) else json.dumps(spec))
            self._known[at] = found, size
            self._bytes += size
        self._known.move_to_end(at)
        while self._bytes > self._most and len(self._known) > 1:
            _, (_, size) = self._known.popitem(last=False)
            self._bytes -= size
        return self._known[at][0]


def loaded(load: Callable[[object], Spec], spec: object) -> Spec | InvalidSpecError:
    try:
        return load(spec)
    except InvalidSpecError as error:
        return error.with_traceback(None)  # whose frames would keep all that was looked at
