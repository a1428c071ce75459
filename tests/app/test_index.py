"""The index builder as its pod runs it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from llm_app.config import Chunking, Document, IndexConfig, IndexSource
from llm_app.index import make
from llm_app.store import UNFINISHED, Index

TEXT = "\n\n".join(f"Part {number} of the pump is oiled every {number} hours." for number in range(1300))
CODE = "import pathlib, sys; from llm_app.index import run; sys.exit(run(pathlib.Path(sys.argv[1]))[0])"


def config(folder: Path, revision: str, *keep: str) -> IndexConfig:
    documents = [Document(title=f"t{at}", text=TEXT) for at in range(8)]
    return IndexConfig(
        knowledge="manual", revision=revision, folder=str(folder), keep=[*keep], chunking=Chunking(size=200, overlap=0),
        sources=[IndexSource(name="notes", documents=documents)],
    )  # fmt: skip


def test_a_pod_that_is_killed_leaves_the_old_revision_and_the_next_one_makes_the_new(tmp_path: Path) -> None:
    folder, file = tmp_path / "k", tmp_path / "index.json"
    make(config(folder, "old"))
    whole = Index.load(folder / "old")
    file.write_text(config(folder, "new", "old").model_dump_json(by_alias=True))
    for more in (0.0, 0.05, 0.1):  # seconds after it begins to write
        process = subprocess.Popen([sys.executable, "-c", CODE, str(file)])
        while process.poll() is None and not list(folder.glob(f"{UNFINISHED}*")):
            time.sleep(0.005)
        time.sleep(more)
        process.kill()
        process.wait()
        assert Index.load(folder / "old") == whole
        if (folder / "new").exists():
            assert len(Index.load(folder / "new").chunks) == len(whole.chunks), "what has its name is whole"
    assert subprocess.run([sys.executable, "-c", CODE, str(file)], check=False).returncode == 0
    assert sorted(found.name for found in folder.iterdir()) == ["new", "old"]
    assert Index.load(folder / "new").search("part 1234", 1)[0].text.count("1234") >= 1
