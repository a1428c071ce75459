"""The process that fetches: `python -m llm_trainer.storage`. A request as JSON comes in, lines of JSON go out.

A process of its own, so that credentials, and a hub's client that is online, are nowhere but here.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from functools import cache as once
from pathlib import Path
from typing import Any

from llm_trainer.config import RemoteInput, parse
from llm_trainer.config.remote import Remote
from llm_trainer.runtime.errors import StageError, classify
from llm_trainer.storage.cache import fetch, read_fetched
from llm_trainer.storage.credentials import Credential, read_credential
from llm_trainer.storage.remote_files import Listing, Source
from llm_trainer.storage.request import InputFetched, Request

TELL_SECONDS = 1.0


class Meter:
    """Counts over all that is fetched, and tells it about once a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = self._total = 0
        self._told = 0.0

    def more(self, count: int) -> None:
        with self._lock:
            self._bytes += count
        self.show()

    def total(self, count: int) -> None:
        with self._lock:
            self._total += count
        self.show()

    def waiting(self) -> None:
        self.show(now=True)

    def show(self, *, now: bool = False) -> None:
        with self._lock:
            if now or time.monotonic() - self._told > TELL_SECONDS:
                self._told = time.monotonic()
                say({"bytes": self._bytes, "total": self._total})


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


class Sources:
    """One for each target, made when it is needed: libraries and Secrets of what nobody names are not."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._of = once(self._make)

    def of(self, remote: Remote) -> Source:
        return self._of(remote.target)

    def _make(self, target: str) -> Source:
        credential = self._credential(target)
        scheme, _, authority = target.partition("://")
        if scheme == "hf":
            from llm_trainer.storage.hub import Hub

            return Hub(credential)
        if scheme == "s3":
            from llm_trainer.storage.bucket import Bucket

            return Bucket(authority, credential)
        from llm_trainer.storage.web import Web

        return Web(credential, self._request.writer)

    def _credential(self, target: str) -> Credential:
        for given in self._request.credentials:
            if given.target == target:
                return read_credential(target, given.secret_name, Path(given.folder))
        return Credential(target)


def run(request: Request) -> list[InputFetched]:
    """Raises DataError, naming the field, and StorageError."""
    sources, meter, cache = Sources(request), Meter(), Path(request.cache)
    done: list[InputFetched] = []
    for wanted in request.inputs:
        remote = parse(wanted.uri)
        if kept := pinned(request, wanted, remote, cache):
            done.append(kept)
            continue
        try:
            place = fetch(wanted, sources.of(remote), cache, meter)
        except StageError as error:
            raise type(error)(f"{wanted.field}: {error}") from error
        done.append(told(request, wanted, remote, place.listing))
    meter.waiting()
    return done


def pinned(request: Request, wanted: RemoteInput, remote: Remote, cache: Path) -> InputFetched | None:
    """What this run has fetched before: it stays at its revision, and asks nobody, as long as its files are there."""
    before = next((each for each in request.before if (each.uri, each.use) == (wanted.uri, wanted.use)), None)
    if before is None:
        return None
    folder = cache / remote.place(before.revision)
    known = read_fetched(folder)
    whole = known is not None and all(
        (path := folder / file.path).is_file() and path.stat().st_size == file.size for file in known.files
    )
    return before if whole else None


def told(request: Request, wanted: RemoteInput, remote: Remote, listing: Listing) -> InputFetched:
    below = f"{Path(request.cache).name}/{remote.folder(listing.revision)}"
    return InputFetched(
        uri=wanted.uri,
        use=wanted.use,
        place=f"pvc://{request.claim}/{below}",
        revision=listing.revision,
        bytes=listing.bytes,
        files=len(listing.files),
        license=listing.license,
    )


def main() -> int:
    try:
        done = run(Request.model_validate_json(sys.stdin.read()))
    except Exception as error:  # noqa: BLE001 -- whatever it is, the stage must learn of it
        _, reason, message = classify(error)
        say({"error": {"reason": reason, "message": message}})
        return 1
    say({"fetched": [each.model_dump(mode="json") for each in done]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
