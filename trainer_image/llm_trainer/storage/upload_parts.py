"""A large file into a bucket, part by part: a pod that was killed goes on with the parts that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from llm_trainer.storage.at_once import at_once
from llm_trainer.storage.multipart import MOST_PARTS, AnswerError, Multipart, Part

PART = 16 << 20  # bytes of a request; more in a file of more than MOST_PARTS of them
AT_ONCE = 2  # parts of a file
NO_LISTS = (403, 405, 501)  # the key may not list uploads, or the server can't

Found = TypeVar("Found")


class Ask(Protocol):
    """Makes a request as often as is due, and says what is wrong."""

    def __call__(self, request: Callable[[], Found]) -> Found: ...


class PartsOfFiles:
    """Of a place in a bucket."""

    def __init__(self, requests: Multipart, prefix: str, ask: Ask) -> None:
        self._requests, self._prefix, self._ask = requests, prefix, ask
        self._open: Mapping[str, Sequence[str]] = {}

    def look(self) -> None:
        """Which uploads are open."""
        self._open = self._known(lambda: self._requests.open(f"{self._prefix}/"), {})

    def _known(self, asked: Callable[[], Found], nothing: Found) -> Found:
        """What the server lists; nothing where it may not be asked, as a key for writing alone is no fault."""

        def listed() -> Found:
            try:
                return asked()
            except AnswerError as error:
                if error.status not in NO_LISTS:
                    raise
                print(f"uploads can't be listed ({error}): of a file that was under way all is sent anew", flush=True)
                return nothing

        return self._ask(listed)

    def forget(self, paths: Iterable[str]) -> None:
        """End the uploads of these files, which are of another result."""
        for key in (f"{self._prefix}/{path}" for path in paths):
            self._end(key, self._open.get(key, ()))
        self._open = {}

    def _end(self, key: str, uploads: Sequence[str]) -> None:
        for upload in uploads:
            self._ask(lambda upload=upload: self._requests.abort(key, upload))  # type: ignore[misc]

    def send(self, path: str, file: Path, digest: str) -> int:
        """Bytes that were sent. Raises UploadGoneError if the upload ended meanwhile, which may be its own doing."""
        key = f"{self._prefix}/{path}"
        upload, there = self._under_way(key) or (self._ask(lambda: self._requests.begin(key, digest)), {})
        size = file.stat().st_size
        length = max(PART, -(-size // MOST_PARTS))

        def one(number: int) -> tuple[Part, int]:
            data = read(file, (number - 1) * length, length)
            if (known := there.get(number)) and known.holds(data):
                return known, 0
            return self._ask(lambda: self._requests.send(key, upload, number, data)), len(data)

        made = at_once(AT_ONCE, "part", one, range(1, -(-size // length) + 1))
        self._ask(lambda: self._requests.complete(key, upload, [part for part, _ in made]))
        return sum(count for _, count in made)

    def _under_way(self, key: str) -> tuple[str, dict[int, Part]] | None:
        """The newest upload of a file with its parts by their numbers; older ones are ended."""
        *older, upload = self._open.get(key) or [""]
        self._open = {other: uploads for other, uploads in self._open.items() if other != key}
        self._end(key, older)
        if not upload:
            return None
        nothing: list[Part] = []
        parts = self._known(lambda: self._requests.parts(key, upload), nothing)
        return upload, {part.number: part for part in parts}


def read(file: Path, start: int, length: int) -> bytes:
    """Raises OSError of the volume, which names the file."""
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read(length)
