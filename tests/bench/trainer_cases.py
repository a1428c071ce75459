"""What is compared: one model, its data, and each stage as our user and as TRL's would write it."""

from __future__ import annotations

import json
import pydoc_data.topics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llm_trainer.config import Architecture, StageConfig, local_path
from llm_trainer.data.manifest import TOKENIZER
from llm_trainer.data.sequences import Sequences
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.models.build import from_architecture
from tests.bench.trainer_runs import Machine, Rival
from tests.trainer.pods import Pods

LOG_EVERY = 10  # steps; what transformers' trainers do by default
Message = dict[str, str]
KINDS = {"pretrain": "pretrain", "sft": "sft", "chats": "sft", "lora": "sft", "dpo": "dpo"}
DATASETS = {"sft": "chat", "chats": "chats", "lora": "chat", "dpo": "pairs"}


@dataclass(frozen=True)
class Size:
    """What is large enough for a device that its arithmetic is timed; ``length`` in tokens."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    length: int
    batch: dict[str, int]

    @property
    def model(self) -> Architecture:
        return Architecture(
            family="llama",
            config={
                "hidden_size": self.hidden, "intermediate_size": self.intermediate, "num_hidden_layers": self.layers,
                "num_attention_heads": self.heads, "num_key_value_heads": self.heads // 2,
                "max_position_embeddings": self.length + 1, "tie_word_embeddings": True,
            },
        )  # fmt: skip


SIZES = {
    "cpu": Size(256, 704, 6, 8, 256, {"globalBatchSize": 8, "microBatchSize": 2}),
    "cuda": Size(768, 2048, 12, 12, 1024, {"globalBatchSize": 32, "microBatchSize": 8}),
}


@dataclass(frozen=True)
class Bench:
    """A folder with the corpus, its prepared data and the model that every run starts from."""

    volumes: Path
    machine: Machine
    steps: int

    @property
    def size(self) -> Size:
        return SIZES[self.machine.device]

    def config(self, stage: str, **settings: Any) -> StageConfig:
        return StageConfig.model_validate(
            {
                "training": "bench",
                "namespace": "default",
                "uid": "0",
                "stage": stage,
                "attempt": 1,
                "nodes": 1,
                "processesPerNode": self.machine.processes,
                "device": self.machine.device,
                "volumesRoot": str(self.volumes),
                "runUri": "pvc://models/run",
                **settings,
            }
        )

    # --- what is needed before ---

    def prepare(self) -> None:
        corpus = self.volumes / "corpus"
        corpus.mkdir(parents=True)
        texts = list(pydoc_data.topics.topics.values())
        write_rows(corpus / "text.jsonl", [{"text": text} for text in texts])
        questions = list(question_rows(texts, self.steps * self.size.batch["globalBatchSize"]))
        write_rows(corpus / "chat.jsonl", [{"messages": [*q, a]} for q, a, _ in questions])
        cuts = answer_lengths(len(questions))
        cut = [
            {**a, "content": a["content"].lstrip()[:length]} for (_, a, _), length in zip(questions, cuts, strict=True)
        ]
        write_rows(corpus / "chats.jsonl", [{"messages": [*q, a]} for (q, _, _), a in zip(questions, cut, strict=True)])
        write_rows(corpus / "pairs.jsonl", [{"prompt": q, "chosen": [a], "rejected": [b]} for q, a, b in questions])
        settings = {
            "data": {"sources": [{"name": "text", "uri": "pvc://corpus/text.jsonl"}], "validationFraction": 0.001},
            "tokenizer": {"train": {"vocabularySize": 8192}},
        }
        config = self.config("data", processesPerNode=1, device="cpu", prepareData=settings)
        Pods(config, self.volumes, {"CUDA_VISIBLE_DEVICES": ""}).run()
        tokenizer = load_tokenizer(Path(config.data_folder) / TOKENIZER)
        torch.manual_seed(0)
        from_architecture(self.size.model, tokenizer).save_pretrained(self.volumes / "models/start")
        tokenizer.save_pretrained(self.volumes / "models/start")
        self._write_packed_rows(config)

    def _write_packed_rows(self, config: StageConfig) -> None:
        """The rows of our pretraining, in its order, for a trainer that wants them as a dataset."""
        sequences = Sequences(Path(config.data_folder), self.size.length, seed=0)
        eos = sequences.manifest.eos_token_id
        packed = []
        for index in range(self.steps * self.size.batch["globalBatchSize"]):
            tokens, positions = (part.tolist() for part in vars(sequences.row(index)).values())
            # the last token is only a target; its position is needed all the same, and nothing is learned from it
            positions.append(0 if tokens[-1] == eos else positions[-1] + 1)
            packed.append({"input_ids": tokens, "position_ids": positions, "labels": tokens})
        write_rows(self.volumes / "corpus/packed.jsonl", packed)

    # --- the two sides ---

    def ours(self, case: str, name: str, precision: str, *, compiled: bool = False) -> StageConfig:
        settings: dict[str, Any] = {
            **self.size.batch,
            "precision": precision,
            "optimizer": {"learningRate": 3e-4, "beta2": 0.999, "weightDecay": 0.1},
            "schedule": {"type": "constant"},
            "checkpoint": {"everySteps": 10**6},
            "evaluation": {"everySteps": 10**6},
            "activationCheckpointing": False,
        }
        if case == "pretrain":
            settings |= {"sequenceLength": self.size.length, "steps": self.steps, "compile": compiled}
        else:
            uri = f"pvc://corpus/{DATASETS[case]}.jsonl"
            settings |= {"dataset": {"uri": uri, "validationFraction": 0.0}, "maxLength": self.size.length}
        if case == "lora":
            settings["lora"] = {"rank": 16, "alpha": 32}
        return self.config(name, model={"uri": "pvc://models/start"}, **{KINDS[case]: settings})

    def rival(self, case: str, name: str, *, bfloat16: bool, deepspeed: bool = True) -> Rival:
        cuda = self.machine.device == "cuda"
        accumulation = self.size.batch["globalBatchSize"] // self.size.batch["microBatchSize"] // self.machine.processes
        arguments: dict[str, Any] = {
            "output_dir": str(self.volumes / name),
            "use_cpu": not cuda,
            "seed": 0,
            "per_device_train_batch_size": self.size.batch["microBatchSize"],
            "gradient_accumulation_steps": accumulation,
            "max_steps": self.steps,
            "learning_rate": 3e-4,
            "weight_decay": 0.1,
            "lr_scheduler_type": "constant",
            "logging_steps": LOG_EVERY,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "bf16": bfloat16,
            "gradient_checkpointing": False,
            "dataloader_pin_memory": cuda,
        }
        if deepspeed:
            arguments["deepspeed"] = deepspeed_config(bfloat16=bfloat16)
        rows = self.volumes / f"corpus/{DATASETS.get(case, 'packed')}.jsonl"
        start = local_path("pvc://models/start", str(self.volumes))
        return Rival(case, start, str(rows), str(self.volumes / f"{name}.jsonl"), self.size.length, arguments)


def deepspeed_config(*, bfloat16: bool) -> dict[str, Any]:
    """As transformers' documentation writes it, with ZeRO 1."""
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": bfloat16},
        "zero_optimization": {"stage": 1},
        "zero_allow_untested_optimizer": True,
    }


def question_rows(texts: list[str], count: int) -> Iterator[tuple[list[Message], Message, Message]]:
    """Questions, each with the passage that follows it in the text and, for pairs, one from elsewhere."""
    passages = [text[at : at + 600].strip() for text in texts for at in range(0, len(text) - 300, 300)]
    if len(passages) < count:
        raise ValueError(f"the text has {len(passages)} passages and {count} rows are needed; make fewer steps")
    for index in range(count):
        passage, other = passages[index], passages[(index + len(passages) // 2) % len(passages)]
        question = [{"role": "user", "content": passage[:80]}]
        yield (
            question,
            {"role": "assistant", "content": passage[80:]},
            {"role": "assistant", "content": other[80:]},
        )


def answer_lengths(count: int) -> list[int]:
    """Characters, spread as those of chats are: most are short, a few long."""
    draw = np.random.default_rng(0)
    return [int(length) for length in np.clip(draw.lognormal(5.0, 0.9, count), 8, 520)]


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
