"""Writes which classes of models vLLM loads adapters for, for the launcher in a serving pod and for the operator.

python tools/vllm_lora.py [--check], where vLLM is installed: in the trainer image.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vllm.model_executor.models import ModelRegistry, supports_lora

FILE = Path(__file__).parents[1] / "trainer_image/llm_server/lora.json"


def table() -> dict[str, bool]:
    """Class → whether vLLM loads adapters for it. What can't be imported here is left out: nothing is known of it."""
    found = {}
    for name, registered in ModelRegistry.models.items():
        try:
            found[name] = bool(supports_lora(registered.load_model_cls()))
        except Exception as error:  # noqa: BLE001 -- such as a kernel that wants a GPU
            print(f"left out: {name}: {type(error).__name__}: {error}", file=sys.stderr)
    return dict(sorted(found.items()))


def main() -> int:
    text = json.dumps(table(), indent=1) + "\n"
    if "--check" in sys.argv:
        if same := FILE.read_text() == text:
            return 0
        print(f"{FILE.name} is not what vLLM says: run python tools/vllm_lora.py")
        return int(not same)
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
