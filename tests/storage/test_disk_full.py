"""A disk that fills while a file is fetched: a real one of few bytes, which no other process sees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FETCHING = """
import json, os, sys
from pathlib import Path
from llm_trainer.config.remote import parse
from llm_trainer.runtime.errors import classify
from llm_trainer.storage.ranges import fetch_ranges
from llm_trainer.storage.remote_files import RemoteFile

content = os.urandom(6 << 20)


class Source:
    def read(self, remote, file, start, stop=None):
        starts.append(start)
        for at in range(start, len(content), 1 << 20):
            yield content[at : at + (1 << 20)]


folder, starts, told = Path(sys.argv[1]), [], []
others = folder / "others"
others.write_bytes(bytes(3 << 20))


def fetch():
    fetch_ranges(Source(), parse("s3://bucket/file"), RemoteFile("file", len(content), "1"), folder / "part", int)


try:
    fetch()
except Exception as error:
    told = classify(error)
others.unlink()
fetch()
print(json.dumps({"told": told, "starts": starts, "whole": (folder / "part").read_bytes() == content}))
"""


def test_it_is_told_as_such_and_gone_on_with_once_there_is_room(tmp_path: Path) -> None:
    """The mount is in a namespace of the process's own."""
    script = f'mount -t tmpfs -o size=8m none {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}'
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script, FETCHING],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    code, reason, message = found["told"]
    assert (code, reason) == (73, "NoSpace"), message
    assert found["whole"]
    assert found["starts"][0] == 0
