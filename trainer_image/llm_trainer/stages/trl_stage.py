"""What makes one of TRL's trainers a stage of ours: its loss, collator, rows and figures, and our loop and engine.

A stage derives its trainer from `StageTrainer` and one of TRL's, in this order. `TrlStage` makes the steps with it:
the trainer's own loop, optimizer, checkpoints, logs and evaluation are never run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import datasets
import torch
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import align_special_tokens

from llm_trainer.checkpoint.snapshot import Snapshot
from llm_trainer.config import FineTuning, OnlineRl, Sft, TrainingSettings
from llm_trainer.models.attention import show_attention
from llm_trainer.models.engine import Engine
from llm_trainer.models.engine_config import actual_zero_stage, computes_in_bfloat16, float32_gradients
from llm_trainer.models.export import publish_result
from llm_trainer.models.norms import fuse_norms
from llm_trainer.models.size import size_of
from llm_trainer.models.target_scores import score_targets_on_cpu
from llm_trainer.protocol import Result
from llm_trainer.runtime.batch import DataRank, accumulation_steps
from llm_trainer.runtime.randomness import draw_apart
from llm_trainer.runtime.run import Run
from llm_trainer.stages.fingerprints import digest_of
from llm_trainer.stages.grouped_batches import GroupedBatches, Places
from llm_trainer.stages.loop import Loop
from llm_trainer.stages.loss_watch import shown_numbers
from llm_trainer.stages.micro_batches import MicroBatchOrder
from llm_trainer.stages.packed_batches import PackedBatches
from llm_trainer.stages.step_report import StepReport

NO_FIGURES = ("loss", "learning_rate", "grad_norm", "epoch", "num_tokens", "num_input_tokens_seen", "step_time")


def training_arguments(run: Run, settings: TrainingSettings) -> dict[str, Any]:
    """The arguments that the configs of all TRL trainers share.

    The processes meet here: accelerate, which these arguments wake, must find them together.
    """
    run.meet()
    cuda = run.config.device == "cuda"
    half = cuda and computes_in_bfloat16(settings, run.group.device)  # on CPU by autocast, see StageTrainer
    return {
        "output_dir": run.config.stage_folder,  # nothing is written there by TRL
        "use_cpu": not cuda,
        "bf16": half,
        "seed": settings.seed,
        "per_device_train_batch_size": settings.micro_batch_size,
        "per_device_eval_batch_size": settings.micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps(settings, run.group.world_size),
        "gradient_checkpointing": settings.checkpoints_activations(run.config.device),  # `Engine` does it
        "learning_rate": settings.optimizer.learning_rate,
        "deepspeed": deepspeed_config(settings, half=half),
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": cuda,
    }


def deepspeed_config(settings: TrainingSettings, *, half: bool) -> dict[str, Any]:
    """Of the models that don't learn, such as a reference: TRL and accelerate ask for it. `auto` is transformers' word.

    What learns is an `Engine`.
    """
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        **float32_gradients(half=half),
        "zero_optimization": {
            "stage": actual_zero_stage(settings, half=half),
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,
    }


class Figures(TrainerCallback):  # type: ignore[misc]
    """What a trainer logs of a step."""

    def __init__(self) -> None:
        self.newest: dict[str, float] = {}

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        self.newest = {n: v for n, v in logs.items() if n not in NO_FIGURES and isinstance(v, float)}
        state.log_history.clear()  # would grow with every step


class StageTrainer:
    """Comes before a TRL trainer among the bases."""

    base_figures: ClassVar[
        tuple[str, ...]
    ] = ()  # held-out figures that are also told as they were before the first step
    packs = False  # whether rows may share places, where the model keeps them apart
    settings: FineTuning

    # transformers' own
    state: Any
    args: Any
    model: Any
    model_wrapped: Any
    accelerator: Any
    processing_class: Any
    train_dataset: Any
    eval_dataset: Any
    data_collator: Any
    engine: Engine | None = None  # that makes the loss, in the trainer's place
    owns_loss = False  # whether it is to where it can without logits; where processes share their work, it must

    def __init__(self, run: Run, settings: FineTuning, **arguments: Any) -> None:
        self.run, self.settings, self.figures = run, settings, Figures()
        if run.group.device.type == "cuda":
            fuse_norms(arguments["model"])
        else:
            score_targets_on_cpu()
        super().__init__(callbacks=[self.figures], **arguments)  # type: ignore[call-arg]
        show_attention(run, self.model)
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]

    def row_lengths(self) -> Places | None:
        """Of the rows to train on, in tokens; None where it matters which ones are in a micro-batch together."""
        return None

    def held_out_figures(self) -> dict[str, float]:
        """Newest held-out figures, on every rank; a collective. Empty if the stage holds nothing out."""
        raise NotImplementedError

    def forward(self, **inputs: Any) -> Any:
        """The model's outputs, in the precision of the training."""
        with self.compute_loss_context_manager():
            return self.model_wrapped(**inputs, use_cache=False)

    def summary(self) -> str:
        """How the stage ended, in one line."""
        figures = self.run.board.progress.evaluation.items()
        parts = [f"{self.state.global_step} steps on {len(self.train_dataset):,} rows"]
        parts += [f"held-out {name} {value:.3f}" for name, value in figures]
        return ", ".join(parts)

    def examples(self, dataset: datasets.Dataset) -> datasets.Dataset:
        """Only the columns that the collator takes."""
        self._set_signature_columns_if_needed()  # type: ignore[attr-defined]
        return dataset.select_columns([c for c in dataset.column_names if c in self._signature_columns])  # type: ignore[attr-defined]

    def held_out_batches(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """Batches of the held-out rows for this rank, and whether each counts; the model is in evaluation mode.

        All ranks make equally many, as ZeRO-3 needs it.
        """
        size, (place, ranks) = self.args.per_device_eval_batch_size, DataRank.of(self.settings, self.run.group)
        rows = self.examples(self.eval_dataset)
        mine = range(place, len(rows), ranks)
        self.model_wrapped.eval()
        for begin in range(0, math.ceil(len(rows) / ranks), size):
            picked = list(mine[begin : begin + size])
            examples = [rows[index] for index in picked or [0]]
            yield self._prepare_inputs(self.data_collator(examples)), bool(picked)  # type: ignore[attr-defined]
            self.run.watchdog.beat()
        self.model_wrapped.train()

    def step_figures(self) -> dict[str, float]:
        """What TRL tells of the step that was made, as means over its micro-batches."""
        self.log({})  # type: ignore[attr-defined]
        return self.figures.newest

    # --- called by transformers ---

    def compute_loss_context_manager(self) -> Any:
        """On CPU bfloat16 is for the products only, as in pretraining; on CUDA DeepSpeed keeps the weights in it."""
        contexts = super().compute_loss_context_manager()  # type: ignore[misc]
        device = self.run.group.device
        if device.type == "cpu" and computes_in_bfloat16(self.settings, device):
            contexts.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
        return contexts


class BackwardOfEngine:
    """In the place of accelerate's wrapper, by which a trainer's `training_step` goes backward."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.last = False  # whether the micro-batch is the step's last
        self.applied = True

    def backward(self, loss: torch.Tensor, **_: Any) -> None:
        self.applied = self.engine.learn(loss, last=self.last)


class TrlStage(Loop):
    """Steps whose loss a trainer of TRL's says."""

    settings: FineTuning

    def __init__(self, trainer: StageTrainer) -> None:
        self.trainer = trainer
        order = MicroBatchOrder(trainer)
        super().__init__(trainer.run, trainer.settings, order.steps)
        align_special_tokens(trainer.model, trainer.processing_class)
        steps = accumulation_steps(self.settings, self.run.group.world_size)
        shared = self.settings.processes_per_row > 1
        self.engine = Engine(trainer.model, self.settings, self.run.group, steps, own_loss=shared or trainer.owns_loss)
        trainer.engine = self.engine if shared or (trainer.owns_loss and self.engine.tells_its_loss()) else None
        self.order = self._order_by_length(order)
        self.backward = BackwardOfEngine(self.engine)
        trainer.model_wrapped = trainer.deepspeed = self.engine.deepspeed  # type: ignore[attr-defined]
        trainer.accelerator.deepspeed_engine_wrapped = self.backward
        trainer.state.max_steps = self.steps
        if isinstance(self.settings, Sft) and not self.settings.lora:
            self.flops_per_token = size_of(trainer.model).training_flops_per_token(0)  # rows differ: without scores
        self.rows_digest = digest_of(trainer.train_dataset, self.run.group)
        self.base: dict[str, float] = {}  # held-out figures before the first step, by the names they are told by
        if not isinstance(self.settings, OnlineRl):  # TRL does it for those, by rank
            draw_apart(self.settings.seed, self.run.group.rank // self.settings.tensor_parallel)

    def _order_by_length(self, order: MicroBatchOrder) -> MicroBatchOrder | PackedBatches | GroupedBatches:
        """That which pads the least of those that change no loss."""
        if self.trainer.packs and self.engine.keeps_documents_apart():
            return PackedBatches(self.trainer, order, self.run.group)
        lengths = self.trainer.row_lengths()
        return order if lengths is None else GroupedBatches(self.trainer, order, self.run.group, lengths)

    def make_step(self, learning_rate_share: float) -> StepReport:
        trainer, group = self.trainer, self.run.group
        self.engine.set_learning_rate(learning_rate_share)
        trainer.state.global_step, trainer.state.num_input_tokens_seen = self.step, 0
        with self.run.board.parts.of("data"):
            batches, items, tokens = self.order.of(self.place)
        trainer.current_gradient_accumulation_steps = len(batches)  # type: ignore[attr-defined]
        loss = torch.zeros((), dtype=torch.float64, device=group.device)
        for index, inputs in enumerate(batches, start=1):
            self.backward.last = index == len(batches)
            loss += trainer.training_step(self.engine.deepspeed, inputs, items)  # type: ignore[attr-defined]
        trainer.state.global_step += 1
        total, read = group.sum(float(loss), float(tokens))
        written = trainer.state.num_input_tokens_seen  # by GRPO, which counts for all ranks
        return StepReport(
            loss=total / group.world_size,
            tokens=int(read / self.settings.processes_per_row + written),
            gradient_norm=self.engine.gradient_norm,
            applied=self.backward.applied,
            figures=trainer.step_figures(),
        )

    def named_data(self, begin: int, end: int) -> str:
        told, order = super().named_data(begin, end), self.order
        if isinstance(order, MicroBatchOrder):  # only the loader knows
            return f"{told} ({self.settings.dataset.uri})"
        rows = sorted({int(row) for place in range(begin, end) for row in order.places(place)})
        return f"{told} (rows of {self.settings.dataset.uri} without those held out, from 0: {shown_numbers(rows)})"

    def held_out_figures(self) -> dict[str, float]:
        figures = self.trainer.held_out_figures()
        if self.step == 0:
            names = [name for name in self.trainer.base_figures if name in figures]
            self.base = {f"base{name[0].upper()}{name[1:]}": figures[name] for name in names}
        return {**figures, **self.base} if figures else {}

    def summary(self) -> str:
        return self.trainer.summary()

    # --- results and checkpoints ---

    def learner(self) -> tuple[Engine, PreTrainedTokenizerBase]:
        return self.engine, self.trainer.processing_class

    def export(self) -> Result | None:
        tokenizer = self.trainer.processing_class
        return publish_result(self.run.config, self.settings, self.step, self.engine, tokenizer)

    def fingerprint(self) -> dict[str, Any]:
        return {
            "rows": self.rows_digest,
            "seed": self.settings.seed,
            "globalBatchSize": self.settings.global_batch_size,
        }

    def write(self, snapshot: Snapshot) -> dict[str, Any]:
        self.engine.save(snapshot)
        return {"base": self.base}

    def read(self, folder: Path, state: dict[str, Any]) -> None:
        self.engine.load(folder)
        self.base = {name: float(value) for name, value in state["base"].items()}
        self.trainer.state.global_step = self.step
        if not self.over:
            self.order.go_on_at(self.place)
