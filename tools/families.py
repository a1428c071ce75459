"""Writes what transformers' configuration classes know of each model family, for the operator, which has no torch.

python tools/families.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import get_args

from transformers import AutoConfig

from llm_trainer.config.training import EXTRA_KEYS, Family

FILE = Path(__file__).parents[1] / "operator/llm_operator/api/families.json"


def families() -> dict[str, list[str]]:
    """The keys of each family's configuration."""
    return {family: sorted(keys(family)) for family in get_args(Family)}


def keys(family: str) -> set[str]:
    """As in config.json, and the names under which transformers also takes them."""
    config = AutoConfig.for_model(family)
    found = {key for key in (*config.to_dict(), *config.attribute_map) if not key.startswith("_")}
    return found | EXTRA_KEYS


def main() -> int:
    text = json.dumps(families(), indent=1) + "\n"
    if "--check" in sys.argv:
        if same := FILE.read_text() == text:
            return 0
        print(f"{FILE.name} is not what transformers says: run python tools/families.py")
        return int(not same)
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
