"""Writes what transformers' configuration classes know, for the operator, which has no torch: families.json of those
families whose sizes the operator computes, transformers.json of all that have a causal language model.

python tools/families.py [--check]
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from llm_trainer.config.training import EXTRA_KEYS

# Of every configuration, and nothing of a model's shape: what follows from the family, the tokenizer or the run.
NO_SHAPE = frozenset({
    "add_cross_attention", "architectures", "bos_token_id", "chunk_size_feed_forward", "dtype", "eos_token_id",
    "id2label", "is_encoder_decoder", "label2id", "model_type", "output_attentions", "output_hidden_states",
    "output_router_logits", "pad_token_id", "problem_type", "return_dict", "summary_activation",
    "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj", "transformers_version",
    "use_cache", "vocab_size",
})  # fmt: skip
SIZED = ("gpt2", "llama", "qwen3", "mixtral", "qwen3_moe", "deepseek_v3", "mamba", "mamba2", "jamba")
# Their heads guess a masked or shuffled token, or they need more than text.
NO_DECODERS = frozenset({"xlm", "xlnet", "reformer", "trocr", "cpmant"})
FOLDER = Path(__file__).parents[1] / "operator/llm_operator/api"


def families() -> dict[str, dict[str, dict[str, Any]]]:
    """Of each family the keys of its configuration with their defaults, and other names that transformers takes."""
    return {family: describe(AutoConfig.for_model(family)) for family in SIZED}


def describe(config: PreTrainedConfig) -> dict[str, dict[str, Any]]:
    defaults = {key: plain(value) for key, value in shape(config).items()}
    return {
        "defaults": dict(sorted({**dict.fromkeys(EXTRA_KEYS), **defaults}.items())),
        "aliases": {name: meant for name, meant in sorted(config.attribute_map.items()) if meant in defaults},
    }


def shape(config: PreTrainedConfig) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if not key.startswith("_") and key not in NO_SHAPE}


def plain(value: Any) -> Any:
    """Dictionaries are of no use to the operator."""
    return None if isinstance(value, dict) else value


def transformers() -> dict[str, Any]:
    """The class of each family whose causal language model is made from a configuration; each key's kind of value."""
    configs = {family: config for family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if (config := decoder(family))}
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for config in configs.values():
        annotations: dict[str, Any] = {}
        for kind in reversed(type(config).__mro__):
            annotations |= getattr(kind, "__annotations__", {})
        for key in shape(config):
            if (told := kind_of(annotations.get(key))) and not key.endswith(("_token_id", "_config")):
                found[key][told] += 1
    keys: dict[str, list[str]] = defaultdict(list)
    for key, kinds in found.items():
        keys["number" if "number" in kinds else kinds.most_common(1)[0][0]].append(key)  # an integer is a number
    classes = {family: MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family] for family in sorted(configs)}
    return {"classes": classes, "keys": {kind: sorted(names) for kind, names in sorted(keys.items())}}


def decoder(family: str) -> PreTrainedConfig | None:
    """Its default configuration if it is one of text alone, whose model is causal without being told."""
    try:
        config = AutoConfig.for_model(family)
    except (ValueError, StrictDataclassError):  # it is made of others
        return None
    parts = any(isinstance(getattr(config, key), PreTrainedConfig) for key in config.sub_configs)
    if (
        family in NO_DECODERS
        or family.endswith("_assistant")
        or parts
        or config.get_text_config(decoder=True) is not config
    ):
        return None
    masked = hasattr(config, "is_decoder") and not config.is_decoder and "gpt" not in family
    return None if masked or config.is_encoder_decoder else config


def kind_of(annotation: Any) -> str | None:
    """`boolean`, `integer`, `number` or `string`, or a list of them, such as `integers`; None for another type."""
    if get_origin(annotation) in (Union, UnionType):
        kinds = {kind_of(member) for member in get_args(annotation) if member is not type(None)}
        plainest = ("number", "integer", "string", "boolean", "numbers", "integers", "strings")
        return next((kind for kind in plainest if kind in kinds), None)
    if get_origin(annotation) is Literal:
        return "string"
    if get_origin(annotation) in (list, tuple):
        kind = kind_of(get_args(annotation)[0])
        return f"{kind}s" if kind in ("integer", "number", "string") else None
    return {bool: "boolean", int: "integer", float: "number", str: "string"}.get(annotation)


def main() -> int:
    wrong = 0
    for name, made in (("families.json", families()), ("transformers.json", transformers())):
        text, file = json.dumps(made, indent=1) + "\n", FOLDER / name
        if "--check" not in sys.argv:
            file.write_text(text)
        elif not file.is_file() or file.read_text() != text:
            print(f"{name} is not what transformers says: run python tools/families.py")
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
