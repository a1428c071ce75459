"""QLoRA (Dettmers et al. 2023): the frozen weights in 4 bits, by bitsandbytes. On CUDA only."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from llm_trainer.config import StageConfig, settings_of
from llm_trainer.runtime.errors import ConfigurationError

FIELD = "lora.quantization"


def quantized_loading(config: StageConfig) -> dict[str, Any]:
    """Arguments of `from_pretrained` that hold the stage's model in 4 bits; none if it does not ask for that.

    Raises ConfigurationError where it can't be done.
    """
    settings = settings_of(config)
    if settings is None or settings.lora is None or settings.lora.quantization is None:
        return {}
    check_quantization(config.device, settings.zero_stage)
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.lora.quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["lm_head", "score"],  # its name notwithstanding, of 4 bits too
    )
    return {
        "quantization_config": quantization,
        "dtype": torch.bfloat16,
        "device_map": {"": torch.cuda.current_device()},
    }


def check_quantization(device: str, zero_stage: int) -> None:
    """Raises ConfigurationError."""
    if device != "cuda":
        raise ConfigurationError(f"{FIELD}: nf4 needs CUDA, and this pod has none; remove it or give the pod a GPU")
    if zero_stage == 3:
        raise ConfigurationError(f"{FIELD}: ZeRO-3 can't spread nf4 weights; set zeroStage to 2 or less")
    if find_spec("bitsandbytes") is None:
        raise ConfigurationError(
            f"{FIELD}: the trainer image has no bitsandbytes; add it to the image or remove the field"
        )
