"""Pretraining: next-token prediction on the prepared corpus, exact in its data order and its loss scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from llm_trainer.config import EXPERT_PARALLEL_FAMILIES, Pretrain, StageConfig
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
from llm_trainer.protocol import Result
from llm_trainer.runtime.batch import accumulation_steps
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.randomness import draw_apart
from llm_trainer.runtime.run import Run, start
from llm_trainer.stages.continued import sequences_of
from llm_trainer.stages.loop import Loop, StepReport


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
        self.sequences = sequences_of(config, settings.sequence_length, settings.seed)
        self.tokenizer = load_tokenizer(Path(config.data_folder) / self.sequences.manifest.tokenizer)
        self.accumulation_steps = accumulation_steps(settings, run.group.world_size)
        model = build(config, self.tokenizer, settings.seed)
        check_length(model, settings.sequence_length, settings.length_name("pretrain"))
        check_experts(settings, model.config)
        show_attention(run, model)
        if settings.lora:
            from llm_trainer.models.low_rank import adapted

            model = adapted(model, config, settings.lora, "CAUSAL_LM")
        run.meet()
        kept = biases(model)
        self.engine = Engine(model, settings, run.group, self.accumulation_steps)
        draw_apart(settings.seed, run.group.rank)
        self.balance = Balance(self.engine.model, kept, learns=settings.lora is None)
        self.loss = loss_function(name, "pretrain.lossFunction") if (name := settings.loss_function) else None
        self.tokens_per_step = settings.global_batch_size * settings.sequence_length
        self.routers = Routers(settings.router_aux_loss_coef, settings.router_z_loss_coef)
        run.board.update(total_tokens=self.steps * self.tokens_per_step)

    def make_step(self, learning_rate_share: float) -> StepReport:
        """Forward and backward over this rank's share of the global batch, then the update."""
        self.engine.set_learning_rate(learning_rate_share)
        made, applied = torch.zeros((), dtype=torch.float64, device=self.run.group.device), True
        for micro_batch in range(self.accumulation_steps):
            loss, routed = self._loss(*self._rows(micro_batch))
            self.engine.backward(loss * self.engine.share_of(1) + self.routers.add(routed))
            applied = self.engine.step()
            made += loss.detach()  # read once a step: a GPU would have to wait for each
        (total,) = self.run.group.sum(float(made))
        figures = self.routers.figures(self.run.group) | self.balance.step(self.run.group, applied=applied)
        self.run.board.metrics.show_expert_load(self.routers.load)
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

    def _rows(self, micro_batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (micro_batch, length + 1) and positions (micro_batch, length).

        Which rows a step sees depends on its number alone: the ranks only share them out.
        """
        size, group = self.settings.micro_batch_size, self.run.group
        first = self.step * self.settings.global_batch_size + (micro_batch * group.world_size + group.rank) * size
        rows = [self.sequences.row(index) for index in range(first, first + size)]
        tokens = torch.from_numpy(np.stack([row.tokens for row in rows])).to(group.device)
        return tokens, torch.from_numpy(np.stack([row.positions for row in rows])).to(group.device)

    def held_out_figures(self) -> dict[str, float]:
        """By a part of the held-out text that costs about a hundredth of the training; after the last step of all."""
        folder, alive = Path(self.run.config.data_folder), self.run.watchdog.beat
        steps = self.steps if self.step == self.steps else min(self.steps, self.settings.evaluate_every_steps)
        budget = token_budget(steps * self.tokens_per_step)
        length, manifest = self.settings.sequence_length, self.sequences.manifest
        return held_out_figures(self.engine, folder, manifest, length, budget, alive)

    def export(self) -> Result | None:
        state = self.engine.whole_state()
        if state is None:
            return None
        return publish_result(self.run.config, self.settings, self.step, self.engine.model, state, self.tokenizer)

    def fingerprint(self) -> dict[str, Any]:
        return {
            "data": self.sequences.manifest.digest,
            "seed": self.settings.seed,
            "sequenceLength": self.settings.sequence_length,
            "globalBatchSize": self.settings.global_batch_size,
            **({"firstRow": self.sequences.first} if self.sequences.first else {}),
        }

    def write(self, folder: Path) -> dict[str, Any]:
        self.engine.save(folder)
        return {}

    def read(self, folder: Path, state: dict[str, Any]) -> None:
        self.engine.load(folder)


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
