"""Write down what vLLM asks of a model's class before it loads the model.

It finds that out in a process of its own, which imports the class and with it half of vLLM: a third of the CPU seconds
of a server's start. It keeps the answer in its cache, which is empty in a new pod; llm_server/model_infos.py fills it.
"""

import json
import logging
import os
import sys
from pathlib import Path

os.environ["VLLM_CACHE_ROOT"] = sys.argv[1]

from vllm.model_executor.models import registry

logging.getLogger("vllm").setLevel(logging.ERROR)
registry._run_in_subprocess = lambda found: found()  # there is no device here that an import could take

files = {}
for architecture in (*registry._TEXT_GENERATION_MODELS, *registry._EMBEDDING_MODELS):
    model = registry.ModelRegistry.models[architecture]
    try:
        model.inspect_model_cls()
    except Exception as error:  # noqa: BLE001 -- such as a class that wants a GPU: each start looks at it then
        print(f"not looked at: {architecture}: {' '.join(str(error).split())[:200]}")
    else:
        files[architecture] = model._get_cache_filename()
made = Path(sys.argv[1]) / "modelinfos"
for file in made.iterdir():
    file.chmod(0o644)
(made / "files.json").write_text(json.dumps(files, indent=1))
