"""What the API server's audit log says of one user."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

WRITES = {"create", "update", "patch", "delete", "deletecollection"}


@dataclass(frozen=True)
class Request:
    """One request that was answered. ``at``: seconds since the epoch at which it arrived."""

    at: float
    user: str
    verb: str
    resource: str  # with its subresource, such as llmtrainings/status
    namespace: str
    name: str
    code: int

    @property
    def write(self) -> bool:
        return self.verb in WRITES


def requests(log: Path, user: str = "", since: float = 0.0, until: float = float("inf")) -> Iterator[Request]:
    """The requests of this user (empty: of all) in the time given."""
    with log.open("rb") as lines:
        for line in lines:
            found = _parse(line, user)
            if found and since <= found.at < until:
                yield found


class Writes:
    """Follows the log: when anything but a Lease was last written."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read = log.stat().st_size
        self.last = time.time()

    def look(self) -> float:
        """Reads on, and returns the newest write's time."""
        with self._log.open("rb") as lines:
            lines.seek(self._read)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                found = _parse(line)
                if found and found.write and found.resource != "leases":
                    self.last = max(self.last, found.at)
        return self.last


def _parse(line: bytes, user: str = "") -> Request | None:
    if not line.endswith(b"\n") or (user and f'"username":"{user}"'.encode() not in line):
        return None  # still being written, or somebody else's
    entry = json.loads(line)
    if entry["stage"] != "ResponseComplete" or user not in ("", entry["user"]["username"]):
        return None
    target = entry.get("objectRef") or {}
    return Request(
        datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp(),
        entry["user"]["username"],
        entry["verb"],
        "/".join(filter(None, (target.get("resource", ""), target.get("subresource")))),
        target.get("namespace", ""),
        target.get("name", ""),
        entry["responseStatus"]["code"],
    )


def by_verb(found: Iterable[Request]) -> Counter[str]:
    """How often each verb was used on each resource."""
    return Counter(f"{request.verb} {request.resource}" for request in found)
