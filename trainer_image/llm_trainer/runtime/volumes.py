"""Users' files lie on shared claims, where others may have put links."""

from __future__ import annotations

import os
from pathlib import Path

from llm_trainer.runtime.errors import DataError


def refuse_links_out(path: Path, volumes_root: str, said: str) -> None:
    """Raises DataError if a file, or anything in a folder, is a link that leads out of its claim.

    It would be read as the pod's user: another claim, or the pod's own files. A link inside the claim is a user's way
    to share files. `said` names the field and what the user wrote there.
    """
    for found in (path, *_links(path)):
        refuse_link_out(found, volumes_root, said)


def refuse_link_out(found: Path, volumes_root: str, said: str) -> None:
    """Raises DataError if this one path leads out of its claim. A link that goes round leads nowhere, so not out."""
    claim = Path(volumes_root, found.relative_to(volumes_root).parts[0])
    real = Path(os.path.realpath(found))
    if not real.is_relative_to(os.path.realpath(claim)):
        at = found.relative_to(volumes_root).as_posix()
        raise DataError(f"{said}: pvc://{at} leads out of the claim {claim.name}, to {real}; put a copy in its place")


def _links(folder: Path) -> list[Path]:
    """All links in a folder, of which none is followed."""
    found: list[Path] = []
    for root, folders, files in os.walk(folder):
        found += [path for name in (*folders, *files) if (path := Path(root, name)).is_symlink()]
    return found
