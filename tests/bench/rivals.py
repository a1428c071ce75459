"""What a TRL user would write instead of our stages: transformers' and TRL's own trainers with DeepSpeed.

Run under torchrun with the path of a JSON file as the only argument; `Rival` says what is in it. Writes a row
{step, time} after each step and {step, loss} whenever the trainer logs, as every trainer does on its own terms.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    default_data_collator,
)
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from tests.bench.trainer_runs import Rival


class Log(TrainerCallback):  # type: ignore[misc]
    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.write(state, time=time.time())

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if "loss" in logs:
            self.write(state, loss=logs["loss"])

    def write(self, state: TrainerState, **figures: float) -> None:
        if state.is_world_process_zero:
            with self.file.open("a") as file:
                file.write(json.dumps({"step": state.global_step, **figures}) + "\n")


def pretrain(rival: Rival, common: dict[str, Any], rows: datasets.Dataset) -> Trainer:
    """DataCollatorForLanguageModeling would add an attention mask, with which transformers no longer looks at the
    positions: documents in a row would see each other, and the losses would differ.
    """
    arguments = TrainingArguments(**rival.arguments, train_sampling_strategy="sequential")
    return Trainer(**common, args=arguments, train_dataset=rows, data_collator=default_data_collator)


def sft(rival: Rival, common: dict[str, Any], rows: datasets.Dataset) -> Trainer:
    arguments = SFTConfig(**rival.arguments, max_length=rival.max_length, assistant_only_loss=True)
    return SFTTrainer(**common, args=arguments, train_dataset=rows)


def lora(rival: Rival, common: dict[str, Any], rows: datasets.Dataset) -> Trainer:
    arguments = SFTConfig(**rival.arguments, max_length=rival.max_length, assistant_only_loss=True)
    adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    return SFTTrainer(**common, args=arguments, train_dataset=rows, peft_config=adapter)


def dpo(rival: Rival, common: dict[str, Any], rows: datasets.Dataset) -> Trainer:
    arguments = DPOConfig(**rival.arguments, max_length=rival.max_length, precompute_ref_log_probs=True)
    return DPOTrainer(**common, args=arguments, train_dataset=rows)


TRAINERS: dict[str, Callable[[Rival, dict[str, Any], datasets.Dataset], Trainer]] = {
    "pretrain": pretrain,
    "sft": sft,
    "chats": sft,  # of very different lengths
    "lora": lora,
    "dpo": dpo,
}


def main() -> None:
    import deepspeed

    rival = Rival(**json.loads(Path(sys.argv[1]).read_text()))
    if "deepspeed" in rival.arguments:
        deepspeed.init_distributed(dist_backend="gloo" if rival.arguments["use_cpu"] else "nccl")
    common = {
        "model": AutoModelForCausalLM.from_pretrained(rival.model, dtype="float32"),
        "processing_class": AutoTokenizer.from_pretrained(rival.model),
        "callbacks": [Log(rival.log)],
    }
    rows = datasets.load_dataset("json", data_files=rival.rows, split="train")
    TRAINERS[rival.kind](rival, common, rows).train()
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    sys.stdout.flush()
    os._exit(0)  # a thread of gloo that outlives its group would end the process as failed


if __name__ == "__main__":
    main()
