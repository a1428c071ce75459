"""What vLLM asks of a model's class before it loads the model. The image holds the answers, vLLM looks in its cache.

Without one, each start runs a process that imports the class and half of vLLM. VLLM takes a file only if it was made of
the very source of its class; trainer_image/build/model_infos.py makes them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from llm_server.model_folder import classes_of

MADE = Path("/opt/llm/vllm/modelinfos")
FILES = "files.json"  # by a config.json's class, which may be another name of vLLM's


def lay_out(model: Path, environ: Mapping[str, str], made: Path = MADE) -> None:
    """Those of the model's classes; a cache that can't be written to costs its time alone."""
    root = environ.get("VLLM_CACHE_ROOT")
    if not root or not (made / FILES).is_file() or not (model / "config.json").is_file():
        return
    files = json.loads((made / FILES).read_text())
    cache = Path(root) / made.name
    for name in (files[known] for known in classes_of(model) if known in files):
        with suppress(OSError):
            cache.mkdir(parents=True, exist_ok=True)
            beside = cache / f".{name}.{os.uname().nodename}"  # other pods may use the same cache
            shutil.copyfile(made / name, beside)
            beside.replace(cache / name)
