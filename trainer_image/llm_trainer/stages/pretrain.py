"""Pretraining: next-token prediction on the prepared corpus, exact in its data order and its loss scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from llm_trainer.checkpoint.snapshot import Snapshot
from llm_trainer.config import EXPERT_PARALLEL_FAMILIES, Pretrain, StageConfig, Tune
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.models.attention import show_attention
from llm_trainer.models.balance import Balance, biases
from llm_trainer.models.build import build
from llm_trainer.models.engine import Engine
from llm_trainer.models.experts import Routers, Routing
from llm_trainer.models.export import publish_result
from llm_trainer.models.held_out import held_out_figures, token_budget
from llm_trainer.models.limits import check_length
from llm_trainer.models.loss_function import loss_function
from llm_trainer.models.size import size_of
from llm_trainer.models.width import base_width, scale_initialisation, width_ratio
from llm_trainer.protocol import Result
from llm_trainer.runtime.batch import DataRank, accumulation_steps
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.randomness import draw_apart
from llm_trainer.runtime.run import Run, start
from llm_trainer.stages.compiling import Compiling
from llm_trainer.stages.continued import sequences_of
from llm_trainer.stages.loop import Loop
from llm_trainer.stages.loss_watch import shown_numbers
from llm_trainer.stages.read_tokens import ReadCounts, by_domain
from llm_trainer.stages.step_report import StepReport

MOST_ROWS = 512  # whose documents a message names
SHOWN_EVERY_STEPS = 10  # what was read by source: of a corpus of many sources a few milliseconds


def run(config: StageConfig, board: Board) -> str:
    """Pretrain; the message of the end.

    Raises ConfigurationError and DataError for what a user has to change, and what `Loop.fit` raises.
    """
    settings = config.pretrain
    if settings is None or config.model is None:
        raise ConfigurationError("a pretrain stage needs its settings and a model")
    with start(config, board) as run:
        return Pretraining(run, settings).fit()


class Pretraining(Loop):
    settings: Pretrain

    def __init__(self, run: Run, settings: Pretrain) -> None:
        super().__init__(run, settings, settings.total_steps)
        config = run.config
        self.sequences = sequences_of(config, settings)
        self.read_counts = ReadCounts(self.sequences)
        self.tokenizer = load_tokenizer(Path(config.data_folder) / self.sequences.manifest.tokenizer)
        self.accumulation_steps = accumulation_steps(settings, run.group.world_size)
        model = build(config, self.tokenizer, settings.seed)
        check_length(model, settings.sequence_length, settings.length_name("pretrain"))
        check_experts(settings, model.config)
        if config.model and config.model.architecture and base_width(settings):
            scale_initialisation(model, width_ratio(model, settings))
        if not settings.lora:
            self.flops_per_token = size_of(model).training_flops_per_token(settings.sequence_length)
        show_attention(run, model)
        if settings.lora:
            from llm_trainer.models.low_rank import adapted

            model = adapted(model, config, settings.lora, "CAUSAL_LM")
        run.meet()
        kept = biases(model)
        self.engine = Engine(model, settings, run.group, self.accumulation_steps)
        draw_apart(settings.seed, run.group.rank // settings.tensor_parallel)
        self.compiling = Compiling(run, settings, self.engine, self.store.folder)
        self.balance = Balance(self.engine.model, kept, learns=settings.lora is None)
        self.loss = loss_function(name, "pretrain.lossFunction") if (name := settings.loss_function) else None
        self.tokens_per_step = settings.global_batch_size * settings.sequence_length
        self.routers = Routers(settings.router_aux_loss_coef, settings.router_z_loss_coef)
        run.board.update(total_tokens=self.steps * self.tokens_per_step)

    def before_step(self) -> None:
        seconds_left = self.speed.seconds_per_step * (self.steps - self.step)
        self.compiling.before_step(self.settings.micro_batch_size, seconds_left)

    def make_step(self, learning_rate_share: float) -> StepReport:
        """Forward and backward over this rank's share of the global batch, then the update."""
        self.engine.set_learning_rate(learning_rate_share)
        made, applied = torch.zeros((), dtype=torch.float64, device=self.run.group.device), True
        for micro_batch in range(self.accumulation_steps):
            with self.run.board.parts.of("data"):
                rows = self._rows(micro_batch)
            loss, routed = self._loss(*rows)
            self.engine.backward(loss * self.engine.share_of(1) + self.routers.add(routed))
            applied = self.engine.step()
            made += loss.detach()  # read once a step: a GPU would have to wait for each
        (total,) = self.run.group.sum(float(made) / self.settings.tensor_parallel)  # whose ranks have it all
        figures = self.routers.figures(self.run.group) | self.balance.step(self.run.group, applied=applied)
        self.run.board.metrics.show_expert_load(self.routers.load)
        self._show_read()
        return StepReport(
            loss=total,
            tokens=self.tokens_per_step,
            gradient_norm=self.engine.gradient_norm,
            applied=applied,
            figures=figures,
        )

    def _loss(self, tokens: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, Routing | None]:
        """A micro-batch's share of the step's loss, nats per token over the whole global batch; and its routing.

        A loss of the user's is called as transformers would: labels are not shifted, so a row's first token is none.
        """
        if self.loss is None:
            nats, routed = self.engine.nats(tokens[:, :-1], positions, tokens[:, 1:])
            return nats / self.tokens_per_step, routed
        outputs, routed = self.engine.outputs(tokens[:, :-1], positions)
        items = self.tokens_per_step - self.settings.global_batch_size
        return self.loss(outputs, tokens[:, :-1].clone(), torch.tensor(items, device=tokens.device)), routed

    @property
    def first_row(self) -> int:
        """Of the next step, by its global index."""
        return self.place * self.settings.global_batch_size

    def _rows(self, micro_batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (micro_batch, length + 1) and positions (micro_batch, length).

        Which rows a step sees depends on its place alone: the ranks only share them out.
        """
        size, group = self.settings.micro_batch_size, self.run.group
        place, ranks = DataRank.of(self.settings, group)
        first = self.first_row + (micro_batch * ranks + place) * size
        rows = [self.sequences.row(index) for index in range(first, first + size)]
        tokens = torch.from_numpy(np.stack([row.tokens for row in rows])).to(group.device)
        return tokens, torch.from_numpy(np.stack([row.positions for row in rows])).to(group.device)

    def named_data(self, begin: int, end: int) -> str:
        size = self.settings.global_batch_size
        rows = range(begin * size, end * size)
        looked_at = rows[:MOST_ROWS]
        documents = "; ".join(
            f"{file} {shown_numbers(numbers)}" for file, numbers in self.sequences.documents(looked_at).items()
        )
        part = f"the first {len(looked_at)} " if len(looked_at) < len(rows) else ""
        return f"{super().named_data(begin, end)} (documents of {part}rows, by shard and counted from 0: {documents})"

    def tune(self) -> Tune | None:
        return self.settings.tune

    def share_rows_by(self, micro_batch_size: int) -> None:
        self.settings = self.settings.model_copy(update={"micro_batch_size": micro_batch_size})
        self.accumulation_steps = accumulation_steps(self.settings, self.run.group.world_size)
        self.engine.share_rows_by(micro_batch_size, self.accumulation_steps)

    def _show_read(self) -> None:
        """Of which sources the rows of this step are."""
        if not self.run.group.is_first:
            return
        step, evaluates = self.step + 1, self.settings.evaluation.every_steps
        end = self.first_row + self.settings.global_batch_size
        self.read_counts.add(self.first_row, end)
        if step % SHOWN_EVERY_STEPS and step % evaluates and step not in (1, self.steps):
            return
        sources = self.read_counts.sources(end)
        self.run.board.update(sources=sources, domains=by_domain(sources))
        self.run.board.metrics.show_read(sources)
        if step == self.steps or step % evaluates == 0:
            self.run.history.append(step, read=self.read_counts.by_source)

    def held_out_figures(self) -> dict[str, float]:
        """By a part of the held-out text that costs about a hundredth of the training; after the last step of all."""
        folder, alive = Path(self.run.config.data_folder), self.run.watchdog.beat
        steps = self.steps if self.step == self.steps else min(self.steps, self.settings.evaluation.every_steps)
        budget = self.settings.evaluation.tokens or token_budget(steps * self.tokens_per_step)
        length, manifest = self.settings.sequence_length, self.sequences.manifest
        return held_out_figures(self.engine, folder, manifest, length, budget, alive)

    def learner(self) -> tuple[Engine, PreTrainedTokenizerBase]:
        return self.engine, self.tokenizer

    def export(self) -> Result | None:
        return publish_result(self.run.config, self.settings, self.step, self.engine, self.tokenizer)

    def fingerprint(self) -> dict[str, Any]:
        return {
            "data": self.sequences.manifest.digest,
            "seed": self.settings.seed,
            "sequenceLength": self.settings.sequence_length,
            "globalBatchSize": self.settings.global_batch_size,
            **self.sequences.fingerprint(),
        }

    def write(self, snapshot: Snapshot) -> dict[str, Any]:
        self.engine.save(snapshot)
        return {"read": self.read_counts.by_source}

    def read(self, folder: Path, state: dict[str, Any]) -> None:
        self.engine.load(folder)
        if self.run.group.is_first:
            self.read_counts.restore(state.get("read"), self.first_row)


def check_experts(settings: Pretrain, model_config: Any) -> None:
    """Raises ConfigurationError when the experts of an existing model can't be shared as asked."""
    size, family = settings.expert_parallel, model_config.model_type
    if size == 1:
        return
    if family not in EXPERT_PARALLEL_FAMILIES:
        raise ConfigurationError(
            f"pretrain.expertParallel {size} is not for the family {family}; use 1, or a model of one of "
            f"{', '.join(EXPERT_PARALLEL_FAMILIES)}"
        )
    if model_config.num_local_experts % size:
        raise ConfigurationError(
            f"pretrain.expertParallel: the model's {model_config.num_local_experts} experts are not divisible by {size}"
        )
