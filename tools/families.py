"""Writes what transformers' configuration classes know of each model family, for the operator, which has no torch.

python tools/families.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, get_args

from transformers import AutoConfig

from llm_trainer.config.training import EXTRA_KEYS, Family

# Of every configuration, and nothing of a model's shape: what follows from the family, the tokenizer or the run.
NO_SHAPE = frozenset({
    "add_cross_attention", "architectures", "bos_token_id", "chunk_size_feed_forward", "dtype", "eos_token_id",
    "id2label", "is_encoder_decoder", "label2id", "model_type", "output_attentions", "output_hidden_states",
    "output_router_logits", "pad_token_id", "problem_type", "return_dict", "summary_activation",
    "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj", "transformers_version",
    "use_cache", "vocab_size",
})  # fmt: skip
FILE = Path(__file__).parents[1] / "operator/llm_operator/api/families.json"


def families() -> dict[str, dict[str, dict[str, Any]]]:
    """Of each family the keys of its configuration with their defaults, and other names that transformers takes."""
    return {family: describe(family) for family in get_args(Family)}


def describe(family: str) -> dict[str, dict[str, Any]]:
    config = AutoConfig.for_model(family)
    defaults = {
        key: plain(value) for key, value in config.to_dict().items() if not key.startswith("_") and key not in NO_SHAPE
    }
    return {
        "defaults": dict(sorted({**dict.fromkeys(EXTRA_KEYS), **defaults}.items())),
        "aliases": {name: meant for name, meant in sorted(config.attribute_map.items()) if meant in defaults},
    }


def plain(value: Any) -> Any:
    """Dictionaries are of no use to the operator."""
    return None if isinstance(value, dict) else value


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
