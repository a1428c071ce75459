"""What makes one of TRL's trainers a stage of ours: the same progress, checkpoints and agreed leaving as pretraining.

A stage derives its trainer from `StageTrainer` and one of TRL's, in this order, and runs it by `train`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from llm_trainer.checkpoint.store import CheckpointStore
from llm_trainer.config import FineTuning, OnlineRl, ResolvedOptimizer, TrainingSettings
from llm_trainer.models.attention import show_attention
from llm_trainer.models.engine import leave_out_frozen
from llm_trainer.models.engine_config import actual_zero_stage, computes_in_bfloat16, float32_gradients
from llm_trainer.models.export import publish_result
from llm_trainer.models.norms import fuse_norms
from llm_trainer.models.parameters import decaying
from llm_trainer.models.schedule import learning_rate_share
from llm_trainer.protocol import Result
from llm_trainer.runtime.batch import accumulation_steps
from llm_trainer.runtime.errors import PreemptedError
from llm_trainer.runtime.randomness import draw_apart
from llm_trainer.runtime.run import Run

KNOWN = ("loss", "learning_rate", "grad_norm", "epoch", "num_tokens", "num_input_tokens_seen", "step_time")


def training_arguments(run: Run, settings: TrainingSettings) -> dict[str, Any]:
    """The arguments that the configs of all TRL trainers share.

    TRL's own logs, checkpoints and evaluation are off: the callback below asks for each of them. The processes meet
    here: accelerate, which these arguments wake, must find them together.
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
        "gradient_checkpointing": cuda,
        "max_grad_norm": settings.optimizer.gradient_clipping,
        **adamw(settings.optimizer),
        "deepspeed": deepspeed_config(settings, half=half),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is not finite must be seen
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": cuda,
    }


def adamw(optimizer: ResolvedOptimizer) -> dict[str, Any]:
    return {
        "optim": "adamw_torch_fused",
        "learning_rate": optimizer.learning_rate,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.epsilon,
        "weight_decay": optimizer.weight_decay,
    }


def deepspeed_config(settings: TrainingSettings, *, half: bool) -> dict[str, Any]:
    """`auto` is filled in by transformers from the training arguments."""
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


def step_of(checkpoint: Path | None) -> int:
    """The step in a checkpoint folder's name; -1 without one."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else -1


class StageCallback(TrainerCallback):  # type: ignore[misc]
    """Shows every step, says when to evaluate and to save, and lets all ranks leave together."""

    def __init__(self, run: Run, settings: TrainingSettings) -> None:
        self.run, self.settings = run, settings
        self.leaving = False
        self.own_tokens: torch.Tensor | int = 0  # of this rank in this step, without padding
        self._begin = time.monotonic()
        self._tokens = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not isinstance(self.settings, OnlineRl):  # TRL does it for those, by rank
            draw_apart(self.settings.seed, self.run.group.rank)
        self._tokens = state.num_input_tokens_seen
        self.run.board.startup.reached("engine")
        self.run.board.update(phase="Training", step=state.global_step, total_steps=state.max_steps)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._begin = time.monotonic()
        self.own_tokens = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.run.watchdog.beat()
        asked, tokens = self.run.group.sum(float(self.run.stop.asked), float(self.own_tokens))
        self.leaving = asked > 0
        state.num_input_tokens_seen += int(tokens)
        step, last = state.global_step, state.global_step >= state.max_steps
        control.should_training_stop |= self.leaving or last
        # The last evaluation follows after the training, so that a stage which leaves here makes it when it is back.
        control.should_evaluate = step % self.settings.evaluate_every_steps == 0 and not (self.leaving or last)
        control.should_save = step % self.settings.checkpoint.every_steps == 0 or self.leaving or last

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """Called by transformers with a step's figures, which are global."""
        state.log_history.pop()  # these figures; they would grow with every step and go into every checkpoint
        if "loss" not in logs:
            return
        seconds = time.monotonic() - self._begin
        tokens, self._tokens = state.num_input_tokens_seen - self._tokens, state.num_input_tokens_seen
        figures = {
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "tokens_per_second": round(tokens / seconds, 1),
        }
        others = {name: value for name, value in logs.items() if name not in KNOWN and isinstance(value, float)}
        for name, value in others.items():
            self.run.board.metrics.figures.labels(self.run.config.stage, name).set(value)
        self.run.board.update(
            step=state.global_step,
            tokens=state.num_input_tokens_seen,
            eta_seconds=round(seconds * (state.max_steps - state.global_step), 1),
            **figures,
        )
        self.run.board.metrics.gpu_memory.set(self.run.group.peak_memory)
        if self.run.group.is_first:
            self.run.history.append(
                state.global_step,
                loss=logs["loss"],
                learningRate=logs["learning_rate"],
                gradNorm=logs.get("grad_norm"),
                tokensPerSecond=figures["tokens_per_second"],
                **({"figures": others} if others else {}),
            )
        self.run.board.stepped()


class StageTrainer:
    """Comes before a TRL trainer among the bases and replaces how it saves, evaluates, resumes and ends."""

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
    optimizer: Any
    lr_scheduler: Any

    def __init__(self, run: Run, settings: FineTuning, **arguments: Any) -> None:
        self.run, self.settings = run, settings
        self._published = 0  # step of the newest result
        config = run.config
        self.store = CheckpointStore(config, settings.checkpoint.keep, run.group)
        self.callback = StageCallback(run, settings)
        if run.group.device.type == "cuda":
            fuse_norms(arguments["model"])
        super().__init__(callbacks=[self.callback], **arguments)  # type: ignore[call-arg]
        show_attention(run, self.model)
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]

    def fit(self) -> Result | None:
        """Train from the newest good checkpoint to the end, evaluate and export; the result is on rank 0.

        Raises PreemptedError when any rank was asked to leave: a checkpoint is committed. Raises NoSpaceError and
        StaleAttemptError as CheckpointStore does.
        """
        self.store.claim()
        checkpoint, notices = self.store.newest()
        for notice in notices:
            self.run.board.notice(notice.reason, notice.message)
        if self.run.group.is_first:
            self.run.history.cut_after(step_of(checkpoint))
        self.args.eval_on_start = checkpoint is None
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)  # type: ignore[attr-defined]
        if self.callback.leaving:
            raise PreemptedError(f"asked to leave; the checkpoint of step {self.state.global_step} is committed")
        self.evaluate_stage()
        result = self.export_result()
        self.run.board.update(phase="Done")
        self.run.show_peak_memory()
        return result

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
        size, world_size = self.args.per_device_eval_batch_size, self.run.group.world_size
        rows = self.examples(self.eval_dataset)
        mine = range(self.run.group.rank, len(rows), world_size)
        self.model_wrapped.eval()
        for begin in range(0, math.ceil(len(rows) / world_size), size):
            picked = list(mine[begin : begin + size])
            examples = [rows[index] for index in picked or [0]]
            yield self._prepare_inputs(self.data_collator(examples)), bool(picked)  # type: ignore[attr-defined]
            self.run.watchdog.beat()
        self.model_wrapped.train()

    def evaluate_stage(self) -> None:
        """Evaluate now and tell everyone."""
        self.run.board.update(phase="Evaluating")
        figures = self.held_out_figures()
        step = self.state.global_step
        if figures:
            self.run.board.update(evaluation=figures)
            if self.run.group.is_first:
                self.run.history.append(step, evaluation=figures)
            for name, value in figures.items():
                self.run.board.metrics.evaluation.labels(self.run.config.stage, name).set(value)
        self.run.board.update(phase="Training")

    def export_result(self) -> Result | None:
        """Gather the weights and write the result on rank 0; a collective."""
        self.run.board.update(phase="Exporting")
        state = self.accelerator.get_state_dict(self.model_wrapped)
        result: Result | None = None
        if self.run.group.is_first:
            with self._whole_models():
                step = self.state.global_step
                result = publish_result(self.run.config, self.settings, step, self.model, state, self.processing_class)
            self.run.board.update(result=result)
        self.run.group.barrier()
        self.run.board.update(phase="Training")
        return result

    @contextmanager
    def _whole_models(self) -> Iterator[None]:
        """With ZeRO-3 transformers spreads every model that it loads over all ranks; here rank 0 is alone."""
        unset_hf_deepspeed_config()
        try:
            yield
        finally:
            set_hf_deepspeed_config(self.args.hf_deepspeed_config)

    # --- called by transformers' training loop ---

    def compute_loss_context_manager(self) -> Any:
        """On CPU bfloat16 is for the products only, as in pretraining; on CUDA DeepSpeed keeps the weights in it."""
        contexts = super().compute_loss_context_manager()  # type: ignore[misc]
        device = self.run.group.device
        if device.type == "cpu" and computes_in_bfloat16(self.settings, device):
            contexts.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
        return contexts

    def _track_num_input_tokens(self, inputs: Any) -> None:
        """Replaces a collective for each micro-batch: the callback sums once a step. GRPO counts by itself."""
        if "attention_mask" in inputs:
            self.callback.own_tokens = self.callback.own_tokens + inputs["attention_mask"].sum()

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """As in pretraining: transformers goes by the names of norms and biases, and decays what is of a recurrence."""
        return sorted(decaying(model))

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer,
                lambda step: learning_rate_share(self.settings.schedule, step, num_training_steps),
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _maybe_log_save_evaluate(self, *arguments: Any, **named: Any) -> None:
        super()._maybe_log_save_evaluate(*arguments, **named)  # type: ignore[misc]
        step, every = self.state.global_step, self.settings.publish_every_steps
        if every and step % every == 0 and self._published < step < self.state.max_steps:
            self._published = step
            self.export_result()

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, *, skip_scheduler: bool = False) -> dict[str, float]:
        self.evaluate_stage()
        self.run.board.startup.reached("evaluation")
        return {}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.run.board.update(phase="Saving")
        begin = time.monotonic()
        folder = self.store.commit(self.state.global_step, self._write_checkpoint)
        self.run.board.metrics.checkpoint_seconds.observe(time.monotonic() - begin)
        self.run.board.update(phase="Training", checkpoint=self.store.info(folder, self.state.global_step))

    def _write_checkpoint(self, folder: Path) -> None:
        """What transformers reads back in `train(resume_from_checkpoint=…)`."""
        if self.settings.lora:
            leave_out_frozen(self.model_wrapped)
        self._save_optimizer_and_scheduler(str(folder))  # type: ignore[attr-defined]
        self._save_rng_state(str(folder))  # type: ignore[attr-defined]
        if self.run.group.is_first:
            self.state.save_to_json(str(folder / "trainer_state.json"))

    def _run_epoch(self, **arguments: Any) -> None:
        """After a resume at the last step there is nothing to do; transformers would begin an epoch all the same."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(**arguments)  # type: ignore[misc]
