"""Pretraining: our own loop over the DeepSpeed engine, so that data order, loss scale and leaving are exact."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from llm_trainer.checkpoint.files import read_manifest
from llm_trainer.checkpoint.store import CheckpointStore
from llm_trainer.config import Pretrain, StageConfig
from llm_trainer.data.sequences import Sequences
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.models.build import build
from llm_trainer.models.engine import Engine
from llm_trainer.models.experts import Routers
from llm_trainer.models.export import publish, write_model
from llm_trainer.models.held_out import held_out_figures
from llm_trainer.models.schedule import learning_rate_share
from llm_trainer.protocol import CheckpointInfo
from llm_trainer.runtime.batch import accumulation_steps
from llm_trainer.runtime.errors import ConfigurationError, PreemptedError, StageError
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import Run, start

BAD_STEPS = 10  # so many steps in a row whose gradient is not finite end the attempt
SPEED_STEPS = 20  # tokens per second is a mean over so many steps


def run(config: StageConfig, board: Board) -> str:
    """Pretrain; the message of the end.

    Raises ConfigurationError and DataError for what a user has to change, PreemptedError when asked to leave,
    NoSpaceError and StaleAttemptError as CheckpointStore does, StageError when the loss is lost.
    """
    settings = config.pretrain
    if settings is None or config.model is None:
        raise ConfigurationError("a pretrain stage needs its settings and a model")
    with start(config, board) as stage:
        return Pretraining(stage, settings).fit()


def total_steps(settings: Pretrain) -> int:
    """Optimizer steps of the run."""
    if settings.steps is not None:
        return settings.steps
    return math.ceil((settings.tokens or 0) / (settings.global_batch_size * settings.sequence_length))


@dataclass(frozen=True)
class Step:
    """What one optimizer step gave, the same on every rank."""

    loss: float  # nats per token over the whole global batch
    applied: bool
    leave: bool  # some rank was asked to leave


@dataclass
class Speed:
    """Mean over the last steps; saving and evaluating don't count."""

    tokens_per_step: int
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=SPEED_STEPS))

    @property
    def seconds_per_step(self) -> float:
        return sum(self.seconds) / max(1, len(self.seconds))

    @property
    def tokens_per_second(self) -> float:
        return self.tokens_per_step / max(1e-9, self.seconds_per_step)


class Pretraining:
    """One process of one attempt."""

    def __init__(self, stage: Run, settings: Pretrain) -> None:
        config = stage.config
        assert config.model  # noqa: S101 -- checked by run
        self.stage, self.settings = stage, settings
        self.store = CheckpointStore(stage.stage_folder, config.attempt, settings.checkpoint.keep, stage.group)
        self.sequences = Sequences(Path(config.data_folder), settings.sequence_length, settings.seed)
        self.tokenizer = load_tokenizer(Path(config.data_folder) / self.sequences.manifest.tokenizer)
        self.accumulation_steps = accumulation_steps(settings, stage.group.world_size)
        model = build(config, self.tokenizer, settings.seed)
        check_length(settings, model.config)
        self.engine = Engine(model, settings, stage.group, self.accumulation_steps)
        self.steps = total_steps(settings)
        self.tokens_per_step = settings.global_batch_size * settings.sequence_length
        self.routers = Routers(settings.router_aux_loss_coef, settings.router_z_loss_coef)
        self.step = 0
        self.evaluated = -1  # step of the newest evaluation
        self.speed = Speed(self.tokens_per_step)

    def fit(self) -> str:
        """From the newest good checkpoint to the end."""
        self._resume()
        board, bad = self.stage.board, 0
        board.update(phase="Training", total_steps=self.steps, total_tokens=self.steps * self.tokens_per_step)
        if self.step == 0:
            self._evaluate()
        while self.step < self.steps:
            done = self._step()
            bad = 0 if done.applied else bad + 1
            if bad >= BAD_STEPS:
                raise StageError(
                    f"the gradient was not finite in {bad} steps in a row, up to step {self.step}; "
                    "lower optimizer.learningRate"
                )
            self._after_step(done)
        self._evaluate()
        self._publish()
        board.update(phase="Done")
        return self._summary()

    # --- one step ---

    def _step(self) -> Step:
        """Forward and backward over this rank's share of the global batch, then the update."""
        began = time.monotonic()
        share = learning_rate_share(self.settings.schedule, self.step, self.steps)
        self.engine.set_learning_rate(share)
        nats, applied = 0.0, True
        for micro_batch in range(self.accumulation_steps):
            tokens, positions = self._rows(micro_batch)
            logits, routed = self.engine.logits_and_routing(tokens[:, :-1], positions)
            loss = functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
            # The sum over the global batch's tokens; DeepSpeed divides by the processes and the micro-batches.
            scale = self.stage.group.world_size * self.accumulation_steps / self.tokens_per_step
            self.engine.backward(loss * scale + self.routers.add(routed))
            applied = self.engine.step()
            nats += float(loss.detach())
        total, asked = self.stage.group.sum(nats, float(self.stage.stop.asked))
        figures = self.routers.figures(self.stage.group)
        self.step += 1
        self._show(total / self.tokens_per_step, share, time.monotonic() - began, figures, applied=applied)
        return Step(total / self.tokens_per_step, applied, leave=asked > 0)

    def _rows(self, micro_batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (micro_batch, length + 1) and positions (micro_batch, length).

        Which rows a step sees depends on its number alone: the ranks only share them out.
        """
        size, group = self.settings.micro_batch_size, self.stage.group
        first = self.step * self.settings.global_batch_size + (micro_batch * group.world_size + group.rank) * size
        rows = [self.sequences.row(index) for index in range(first, first + size)]
        tokens = torch.from_numpy(np.stack([row.tokens for row in rows])).to(group.device)
        return tokens, torch.from_numpy(np.stack([row.positions for row in rows])).to(group.device)

    def _after_step(self, done: Step) -> None:
        last = self.step == self.steps
        if done.leave or last or self.step % self.settings.checkpoint.every_steps == 0:
            self._save()
        if done.leave and not last:
            raise PreemptedError(f"asked to leave; the checkpoint of step {self.step} is committed")
        if not last and self.step % self.settings.evaluate_every_steps == 0:
            self._evaluate()
        publish = self.settings.publish_every_steps
        if not last and publish and self.step % publish == 0:
            self._publish()

    # --- what is seen of it ---

    def _show(self, loss: float, share: float, seconds: float, figures: dict[str, float], *, applied: bool) -> None:
        board, metrics = self.stage.board, self.stage.board.metrics
        self.stage.watchdog.beat()
        self.speed.seconds.append(seconds)
        rate, norm = share * self.settings.optimizer.learning_rate, self.engine.gradient_norm
        tokens = self.step * self.tokens_per_step
        board.update(
            step=self.step,
            tokens=tokens,
            loss=loss,
            learning_rate=rate,
            tokens_per_second=round(self.speed.tokens_per_second, 1),
            eta_seconds=round(self.speed.seconds_per_step * (self.steps - self.step), 1),
        )
        metrics.loss.set(loss)
        metrics.learning_rate.set(rate)
        metrics.gradient_norm.set(norm)
        metrics.step.set(self.step)
        metrics.tokens.set(tokens)
        metrics.tokens_per_second.set(self.speed.tokens_per_second)
        metrics.last_step.set_to_current_time()
        metrics.step_seconds.observe(seconds)
        for name, value in figures.items():
            metrics.figures.labels(self.stage.config.stage, name).set(value)
        if not applied:
            metrics.skipped_steps.inc()
        if self.stage.group.is_first:
            speed = round(self.tokens_per_step / seconds, 1)
            self.stage.history.append(
                self.step,
                loss=loss,
                learningRate=rate,
                gradNorm=norm,
                tokensPerSecond=speed,
                applied=applied,
                **({"figures": figures} if figures else {}),
            )
            if self.step % 10 == 0 or self.step == 1:
                print(f"step {self.step}/{self.steps} loss {loss:.4f} {speed:,.0f} tokens/s", flush=True)

    def _evaluate(self) -> None:
        if self.evaluated == self.step:
            return
        self.stage.board.update(phase="Evaluating")
        folder = Path(self.stage.config.data_folder)
        length = self.settings.sequence_length
        figures = held_out_figures(self.engine, folder, self.sequences.manifest, length, alive=self.stage.watchdog.beat)
        self.evaluated = self.step
        if figures and self.stage.group.is_first:
            self.stage.history.append(self.step, evaluation=figures)
            print(f"step {self.step} held out: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()), flush=True)
        for name, value in figures.items():
            self.stage.board.metrics.evaluation.labels(self.stage.config.stage, name).set(value)
        self.stage.board.update(phase="Training", evaluation=figures)

    def _publish(self) -> None:
        """Write the model as a result; on rank 0, while the others wait."""
        self.stage.board.update(phase="Exporting")
        state, config = self.engine.whole_state(), self.stage.config
        if self.stage.group.is_first and state is not None:
            write = partial(write_model, self.engine.model, state, self.tokenizer)
            self.stage.board.update(result=publish(config, self.step, "model", write))
        self.stage.group.barrier()
        self.stage.board.update(phase="Training")

    def _summary(self) -> str:
        evaluation = self.stage.board.progress.evaluation
        parts = [f"{self.steps} steps", f"{self.steps * self.tokens_per_step:,} tokens"]
        parts += [f"held-out {name} {value:.3f}" for name, value in evaluation.items() if name != "loss"]
        return ", ".join(parts)

    # --- checkpoints ---

    def _save(self) -> None:
        board = self.stage.board
        board.update(phase="Saving")
        began = time.monotonic()
        folder = self.store.commit(self.step, self._write)
        board.metrics.checkpoint_seconds.observe(time.monotonic() - began)
        board.metrics.checkpoint_step.set(self.step)
        uri = f"{self.stage.config.run_uri}/stages/{self.stage.config.stage}/checkpoints/{folder.name}"
        board.update(phase="Training", checkpoint=CheckpointInfo(step=self.step, uri=uri, time=time.time()))
        self.stage.watchdog.beat()

    def _write(self, folder: Path) -> None:
        self.engine.save(folder)
        torch.save(random_states(self.stage), folder / f"random-{self.stage.group.rank}.pt")
        if self.stage.group.is_first:
            state = {"step": self.step, "fingerprint": self._fingerprint()}
            (folder / "state.json").write_text(json.dumps(state))

    def _resume(self) -> None:
        self.store.claim()
        folder, notices = self.store.newest()
        for notice in notices:
            self.stage.board.notice(notice.reason, notice.message)
        if folder is not None:
            self._load(folder)
        if self.stage.group.is_first:
            self.stage.history.cut_after(self.step if folder else -1)

    def _load(self, folder: Path) -> None:
        saved = json.loads((folder / "state.json").read_text())
        written_by = read_manifest(folder).world_size
        if written_by != self.stage.group.world_size:
            raise ConfigurationError(
                f"checkpoint {folder.name} was written by {written_by} processes and this attempt has "
                f"{self.stage.group.world_size}; use as many nodes and processes as before"
            )
        if saved["fingerprint"] != self._fingerprint():
            raise ConfigurationError(
                f"checkpoint {folder.name} was made from other data or batch settings: {saved['fingerprint']} "
                f"instead of {self._fingerprint()}; restore them or use a new LLMTraining"
            )
        self.engine.load(folder)
        restore_random_states(self.stage, torch.load(folder / f"random-{self.stage.group.rank}.pt", weights_only=True))
        self.step = saved["step"]
        info = CheckpointInfo(step=self.step, uri=self._uri_of(folder), time=folder.stat().st_mtime)
        self.stage.board.update(step=self.step, checkpoint=info)
        if self.stage.group.is_first:
            print(f"resumed from {folder.name}", flush=True)

    def _uri_of(self, folder: Path) -> str:
        return f"{self.stage.config.run_uri}/stages/{self.stage.config.stage}/checkpoints/{folder.name}"

    def _fingerprint(self) -> dict[str, Any]:
        """What must be the same for the data to go on where it was."""
        settings = self.settings
        return {
            "data": self.sequences.manifest.digest,
            "seed": settings.seed,
            "sequenceLength": settings.sequence_length,
            "globalBatchSize": settings.global_batch_size,
        }


def check_length(settings: Pretrain, model_config: Any) -> None:
    """Raises ConfigurationError when sequences are longer than the model's positions."""
    longest = getattr(model_config, "max_position_embeddings", None)
    if longest and settings.sequence_length > longest:
        raise ConfigurationError(
            f"pretrain.sequenceLength {settings.sequence_length} is beyond the model's {longest} positions"
        )


def random_states(stage: Run) -> dict[str, torch.Tensor]:
    """Dropout must go on as if nothing had happened."""
    states = {"cpu": torch.get_rng_state()}
    if stage.group.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(stage.group.device)
    return states


def restore_random_states(stage: Run, states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], stage.group.device)
