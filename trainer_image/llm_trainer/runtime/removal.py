"""What somebody has left on a claim goes, and nothing that it leads to."""

from __future__ import annotations

import shutil
from pathlib import Path


def remove(left: Path) -> None:
    """A file, a folder, or nothing; of a link the link alone, as what it leads to may be anybody's."""
    if left.is_symlink() or left.is_file():
        left.unlink(missing_ok=True)
    elif left.exists():
        shutil.rmtree(left)
