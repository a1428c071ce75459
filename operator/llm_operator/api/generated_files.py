"""Files that follow from code: written, or compared with what is there. For this room's and for those of tools/."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[3]
Files = Iterable[tuple[Path, str]]  # paths in the repository, and texts


def differences(files: Files) -> list[str]:
    """A unified diff of every file that is not as it would be generated."""
    found: list[str] = []
    for path, text in files:
        file = ROOT / path
        present = file.read_text() if file.exists() else ""
        found += difflib.unified_diff(
            present.splitlines(keepends=True), text.splitlines(keepends=True), f"{path}", f"{path} (generated)"
        )
    return found


def write_or_check(files: Files) -> int:
    """What `python -m … [--check]` does; the exit status is 1 if --check finds a difference."""
    if "--check" in sys.argv:
        found = differences(files)
        sys.stdout.writelines(found)
        if found:
            print("generated files are not up to date: run `make generate`")
        return bool(found)
    for path, text in files:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text)
        print(path)
    return 0
