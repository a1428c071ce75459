"""Whether folders are as a training has written them: `python -m llm_trainer.checkpoint.verify JSON`.

JSON: digests by folder, of the manifests. Prints {"problem": …}, null if all are whole. The launcher of a serving
(llm_server/launch.py) runs it, as it must not import the trainer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from llm_trainer.checkpoint.files import alteration


def first_problem(digests: Mapping[str, str]) -> str | None:
    for folder, digest in digests.items():
        if problem := alteration(Path(folder), digest):
            return f"{folder} is not as its training wrote it: {problem}"
    return None


if __name__ == "__main__":
    print(json.dumps({"problem": first_problem(json.loads(sys.argv[1]))}))
