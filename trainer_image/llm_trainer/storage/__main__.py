"""The process that fetches: `python -m llm_trainer.storage`. A request as JSON comes in, lines of JSON go out.

A process of its own, so that credentials, and a hub's client that is online, are nowhere but here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from llm_trainer.runtime.startup import importing

with importing():
    from llm_trainer.config import RemoteInput, parse
    from llm_trainer.config.remote import Remote
    from llm_trainer.runtime.errors import StageError, classify
    from llm_trainer.storage.cache import fetch, read_fetched
    from llm_trainer.storage.meter import Meter
    from llm_trainer.storage.remote_files import Listing
    from llm_trainer.storage.request import InputFetched, Request
    from llm_trainer.storage.sources import Sources
    from llm_trainer.storage.streams import list_stream, listing_file


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def run(request: Request) -> list[InputFetched]:
    """Raises DataError, naming the field, and StorageError."""
    meter = Meter()
    with meter.shown(lambda count, total: say({"bytes": count, "total": total})):
        return fetch_all(request, meter)


def fetch_all(request: Request, meter: Meter) -> list[InputFetched]:
    sources, cache = Sources(request), Path(request.cache)
    done: list[InputFetched] = []
    for wanted in request.inputs:
        remote = parse(wanted.uri)
        if kept := pinned(request, wanted, remote, cache):
            done.append(kept)
            continue
        try:
            source = sources.of(remote)
            fetched = None if wanted.stream else fetch(wanted, source, cache, meter)
            listing = fetched.listing if fetched else list_stream(wanted, source, cache)
        except StageError as error:
            raise type(error)(f"{wanted.field}: {error}") from error
        done.append(told(request, wanted, remote, listing))
    return done


def pinned(request: Request, wanted: RemoteInput, remote: Remote, cache: Path) -> InputFetched | None:
    """What this run has fetched before: it stays at its revision, and asks nobody, as long as its files are there."""
    name = (wanted.uri, wanted.use, wanted.stream)
    before = next((each for each in request.before if (each.uri, each.use, each.streamed) == name), None)
    if before is None:
        return None
    if before.streamed:
        return before if listing_file(cache, remote, before.revision).is_file() else None
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
        streamed=wanted.stream,
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
