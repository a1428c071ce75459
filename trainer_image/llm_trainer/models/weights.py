"""Whether a folder has the weights of its model: what is missing transformers makes up, and goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from llm_trainer.models.placed_loading import Change, placing
from llm_trainer.models.placement import Placement, without_transformers_zero3
from llm_trainer.runtime.errors import ConfigurationError, DataError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
NO_LANGUAGE_MODEL = ("ForSequenceClassification", "ForMaskedLM", "ForTokenClassification", "ForQuestionAnswering")
# Beside a weight in eight bits or fewer; without them it is another number.
SCALES = (".weight_scale", ".weight_scale_inv", ".weight_scale_2", ".scales", ".qzeros", ".absmax")
SHOWN = 4  # names in a message
DATA_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "U8": torch.uint8,
    "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


def read_config(folder: Path) -> PreTrainedConfig:
    """Raises ConfigurationError for a folder that is no model, or one that needs code of its own."""
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{folder} holds no transformers model: there is no config.json")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a configuration of the user's fails in as many ways as there are families
        said = " ".join(str(error).split())[:500]
        raise ConfigurationError(f"{folder / 'config.json'} is of no model that transformers has: {said}") from error
    return config


def model_config(folder: Path, *, quantized: bool = True) -> PreTrainedConfig:
    """Of a language model. Raises ConfigurationError for a folder that is none.

    `quantized`: weights in bitsandbytes' own form may be, as a stage with lora.quantization takes them.
    """
    config = read_config(folder)
    for name in config.architectures or ():
        if name.endswith(NO_LANGUAGE_MODEL):
            kind = "a reward model" if name.endswith(NO_LANGUAGE_MODEL[0]) else "a model that writes nothing"
            raise ConfigurationError(f"{folder} holds {kind} ({name}); a stage starts from a language model")
    method = quantization_method(config)
    if method == "bitsandbytes" and not quantized:
        raise ConfigurationError(
            f"{folder} holds weights quantised by bitsandbytes, which only an adapter can be trained on: set "
            "lora.quantization, or bring the original weights"
        )
    if method not in (None, "bitsandbytes"):
        raise ConfigurationError(
            f"{folder} holds weights quantised by {method}, which can't be trained; load it with dequantize=True in "
            "its quantization config and save_pretrained(…, save_original_format=False), or bring the original weights"
        )
    return config


def reward_config(folder: Path) -> PreTrainedConfig:
    """Of a model that gives one number. Raises ConfigurationError for a folder that is none."""
    config = read_config(folder)
    if config.num_labels != 1 or not any(name.endswith(NO_LANGUAGE_MODEL[0]) for name in config.architectures or ()):
        found = ", ".join(config.architectures or ()) or "a model without architectures"
        raise ConfigurationError(
            f"{folder} is no reward model: it holds {found}, of {config.num_labels} labels; name a rewardModel stage, "
            "its result, or a sequence classifier of one label"
        )
    return config


def quantization_method(config: PreTrainedConfig) -> str | None:
    """As which the folder's weights are stored; None for weights that are numbers as they are."""
    found = getattr(config, "quantization_config", None)
    if not found:
        return None
    return str(found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", found))


def load(
    kind: Any,
    folder: Path,
    *,
    new: Collection[str] = (),
    placement: Placement | None = None,
    change: Change | None = None,
    **loading: Any,
) -> PreTrainedModel:
    """`kind.from_pretrained(folder)` with all of its weights from the folder; `new`: those that may be made up.

    ``placement``: where the weights go, one by one; ``change``: what each becomes before. Raises DataError for weights
    that are missing, of another shape or can't be read.
    """
    where = {} if placement is None else placement.loading
    with told(folder), placing(placement, change) if placement and (placement.moves or change) else nullcontext():
        model, info = kind.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False,
            **{**where, **loading},
        )  # fmt: skip
    check(folder, info, new)
    made: PreTrainedModel = model
    if placement:
        placement.place_all(made)
    return made


def check_folder(folder: Path, *, scores: bool = False) -> tuple[PreTrainedModel, list[str]]:
    """The language model of a folder without its weights, and the names in the files that it has no use for.

    Or its reward model, which `scores`.

    Reads the configuration and the files' headers: transformers itself loads tensors without contents, so that its
    renames and conversions count. Raises ConfigurationError as `model_config` does, and DataError as `load` does.
    """
    config = reward_config(folder) if scores else model_config(folder)
    model = without_weights(folder, config, AutoModelForSequenceClassification if scores else AutoModelForCausalLM)
    if quantization_method(config):
        return model, []  # the names in the files are those of its method
    with told(folder), without_transformers_zero3():
        headers = dict(weight_headers(folder))
        _, info = type(model).from_pretrained(
            None, config=config, state_dict=headers, device_map={"": "meta"}, output_loading_info=True,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    check(folder, info)
    return model, sorted(info["unexpected_keys"])


def without_weights(folder: Path, config: PreTrainedConfig, kind: Any = AutoModelForCausalLM) -> PreTrainedModel:
    """Raises ConfigurationError for a configuration of no such model."""
    try:
        with without_transformers_zero3(), torch.device("meta"):
            made: PreTrainedModel = kind.from_config(config, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:500]
        raise ConfigurationError(f"{folder / 'config.json'}: transformers builds no such model: {said}") from error
    return made


def check(folder: Path, info: dict[str, Any], new: Collection[str] = ()) -> None:
    """`info`: what transformers says about loading. Raises DataError."""
    unexpected = sorted(info["unexpected_keys"])
    if scales := [name for name in unexpected if name.endswith(SCALES)]:
        raise DataError(
            f"{folder} holds quantised weights, of which its config.json says nothing: {shown(scales)} would be left "
            "out, and the weights be others. Bring the original weights, or the folder with its quantization_config"
        )
    if missing := sorted(set(info["missing_keys"]) - set(new)):
        instead = f"; it has {shown(unexpected)}, which the model does not" if unexpected else ""
        raise DataError(
            f"{folder} lacks weights of its model: {shown(missing)}{instead}; transformers would make them up. Save "
            "the model again by save_pretrained of its own class"
        )
    wrong = [f"{name} is {tuple(found)} instead of {tuple(wanted)}" for name, found, wanted in info["mismatched_keys"]]
    if wrong:
        raise DataError(f"{folder} has weights of another shape than its config.json says: {shown(sorted(wrong))}")


def shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def weight_headers(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and a tensor without contents, of every tensor in the files. Raises DataError for a file that is missing."""
    for file in weight_files(folder):
        if not file.is_file():
            raise DataError(f"{file} is missing: {INDEX} names it; copy the whole folder")
        if file.suffix != ".safetensors":
            yield from torch.load(file, map_location="meta", weights_only=True).items()
            continue
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 -- no mapping
                part = opened.get_slice(name)
                data_type = DATA_TYPES.get(part.get_dtype(), torch.float32)
                yield name, torch.empty(part.get_shape(), dtype=data_type, device="meta")


def weight_files(folder: Path) -> Iterable[Path]:
    """In transformers' order of preference. Raises DataError if there are none."""
    if (folder / WHOLE).exists() or (folder / WHOLE).is_symlink():
        return [folder / WHOLE]
    for index in (INDEX, "pytorch_model.bin.index.json"):
        if (folder / index).is_file():
            named = json.loads((folder / index).read_text())["weight_map"].values()
            return [folder / name for name in sorted(set(named))]
        if index == INDEX and (folder / "pytorch_model.bin").is_file():
            return [folder / "pytorch_model.bin"]
    raise DataError(f"{folder} has no weights: there is neither {WHOLE} nor {INDEX}")


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """What transformers and safetensors say of files that they can't read, as DataError. Its tables are not printed."""
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except (SafetensorError, EOFError, KeyError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"the weights in {folder} can't be read: {error}") from error
    except OSError as error:
        if error.errno is None or isinstance(error, FileNotFoundError):  # transformers' own sentences have no number
            raise DataError(f"the weights in {folder} can't be read: {' '.join(str(error).split())}") from error
        raise
    except (ImportError, AssertionError) as error:
        raise ConfigurationError(f"the model in {folder} can't be loaded: {' '.join(str(error).split())}") from error
    except RuntimeError as error:
        if "conversion of the weights" not in str(error):
            raise
        raise DataError(
            f"the weights in {folder} don't make its model: transformers can't convert them to their present form. "
            "Save the model again by save_pretrained of its own class"
        ) from error
    finally:
        logger.setLevel(level)
