"""Let transformers be imported without reading its 3,000 source files.

`import transformers` looks into each of its files for the names that it exports, and once more for
`transformers.models`: a fifth of the CPU seconds before a stage's first step, and of each process of vLLM. The answer
is the same every time, so it is written down where the library is installed, beside the models.
"""

import pickle
import py_compile
import subprocess
import sys
from pathlib import Path

from transformers.utils import import_utils

TABLE = "import_structure.pickle"
MARK = "# --- the rest is appended by llm-operator: the table that its build has made is read instead of all sources"
APPENDED = f'''

{MARK}
_scan = define_import_structure


@lru_cache
def define_import_structure(module_path, prefix=None):
    folder = os.path.dirname(module_path) if os.path.isfile(module_path) else module_path
    try:
        with open(os.path.join(folder, "{TABLE}"), "rb") as file:
            table = __import__("pickle").load(file)
    except FileNotFoundError:
        return _scan(module_path, prefix)
    head = f"{{prefix}}." if prefix else ""
    return {{needs: {{head + name: names for name, names in modules.items()}} for needs, modules in table.items()}}
'''
CHECK = f"""
from pathlib import Path
import transformers
from transformers import AutoTokenizer, LlamaForCausalLM
from transformers.utils import import_utils
models = Path(transformers.__file__).parent / "models"
for prefix in (None, "models"):
    assert (models / "{TABLE}").exists()
    assert import_utils.define_import_structure(str(models), prefix) == import_utils._scan(str(models), prefix), prefix
"""


def main() -> None:
    source = Path(import_utils.__file__)
    if MARK in source.read_text():
        return
    models = source.parents[1] / "models"
    (models / TABLE).write_bytes(pickle.dumps(import_utils.define_import_structure(str(models))))
    text = source.read_text() + APPENDED
    source.unlink()  # it may be a hard link into a cache that other environments share
    source.write_text(text)
    py_compile.compile(str(source), doraise=True)
    subprocess.run([sys.executable, "-P", "-c", CHECK], check=True)


if __name__ == "__main__":
    main()
