"""Pretraining beside PPO's updates (Ouyang et al. 2022), on the corpus that the training has prepared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from llm_trainer.config import Ppo
from llm_trainer.config import Ptx as PtxSettings
from llm_trainer.models.engine import Engine
from llm_trainer.runtime.run import Run
from llm_trainer.stages.continued import sequences_beside


class Ptx:
    def __init__(self, run: Run, settings: Ppo, ptx: PtxSettings, policy: Engine) -> None:
        self.group, self.settings, self.policy = run.group, settings, policy
        self.sequences = sequences_beside(run.config, ptx.sequence_length, settings.seed)

    def micro_batches(self, step: int) -> Callable[[], torch.Tensor]:
        """Gives the loss, nats per token, of one micro-batch after another; which ones follows from the step."""
        size, world_size = self.settings.micro_batch_size, self.group.world_size
        place = step * self.settings.rollout_size * self.settings.update_epochs + self.group.rank * size

        def loss() -> torch.Tensor:
            nonlocal place
            rows = [self.sequences.row(index) for index in range(place, place + size)]
            place += size * world_size
            tokens = torch.from_numpy(np.stack([row.tokens for row in rows])).to(self.group.device)
            positions = torch.from_numpy(np.stack([row.positions for row in rows])).to(self.group.device)
            return self.policy.nats(tokens[:, :-1], positions, tokens[:, 1:])[0] / positions.numel()

        return loss
