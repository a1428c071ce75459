"""A model that says logits, scores and losses on DeepSpeed's engine, and learns nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import Module
from transformers import PreTrainedModel

from llm_trainer.config import TrainingSettings
from llm_trainer.models.attention import boundaries
from llm_trainer.models.engine_config import computes_in_bfloat16, deepspeed_config
from llm_trainer.models.gated_mlps import fuse_gated_mlps
from llm_trainer.models.language_loss import IGNORED, Scores, add_loss
from llm_trainer.models.norms import fuse_norms
from llm_trainer.models.packing import KEEP_APART, innermost, runs_on, unpack
from llm_trainer.models.sequence_parallel import SharedRows
from llm_trainer.runtime.process_group import ProcessGroup


class Inference:
    """A model that says logits and learns nothing. Every method is called by all ranks together."""

    _own_loss = True  # its `nats` and `scores`, else only the caller's

    def __init__(self, module: Any, settings: TrainingSettings, group: ProcessGroup) -> None:
        """With ZeRO-3 its weights are spread over the ranks."""
        self.group, self.settings, self.model = group, settings, module
        self.bfloat16 = computes_in_bfloat16(settings, group.device)
        self._apart = runs_on(module)  # whether each document needs a row of its own
        self._asked = self._apart or module.config.model_type in KEEP_APART  # whether it is known
        self._shared: SharedRows | None = None  # of a model that learns
        if group.device.type == "cuda":
            fuse_norms(module)
            fused = fuse_gated_mlps(module, group.device, torch.bfloat16 if self.bfloat16 else torch.float32)
            if fused and group.is_first:
                print(f"gated MLPs: Liger's kernel in {fused} layers", flush=True)
        language = innermost(module)
        self._of_hidden = False  # whether its loss is made without logits
        if self._own_loss and isinstance(language, PreTrainedModel) and language.get_output_embeddings() is not None:
            self._of_hidden = add_loss(language)
        self._engine = self._wrap(module)

    def _wrap(self, module: Module) -> Any:
        import deepspeed

        cuda = self.group.device.type == "cuda"
        module.requires_grad_(requires_grad=False)
        module = module.to(self.group.device, torch.bfloat16 if self.bfloat16 and cuda else torch.float32).eval()
        if self.settings.zero_stage < 3:
            return module
        config = deepspeed_config(self.settings, self.group.device, 1, bfloat16=self.bfloat16)
        return deepspeed.initialize(model=module, config={k: v for k, v in config.items() if k != "optimizer"})[0]

    def logits(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """(batch, length, vocabulary) from two of (batch, length); a document begins where positions restart.

        (batch, length) of a ValueModel.
        """
        return self._logits_and_routers(tokens, positions)[0] if self._apart else self._packed_logits(tokens, positions)

    def scores(
        self, tokens: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor, temperature: float
    ) -> Scores:
        """Of each target, all (batch, length), without the logits of the others; a language model's alone."""
        if not self._apart:
            made: Scores = self._run(
                input_ids=tokens, targets=targets, temperature=temperature, **self._places(positions)
            ).scores
            return made
        log_probs, entropy = (torch.zeros(targets.shape, device=targets.device) for _ in range(2))
        for documents in unpack(tokens, positions, every_length=self.settings.zero_stage == 3):
            spread = documents.spread(targets, IGNORED)
            found = self._run(input_ids=documents.tokens, targets=spread, temperature=temperature).scores
            log_probs, entropy = documents.put(found.log_probs, log_probs), documents.put(found.entropy, entropy)
        return Scores(log_probs, entropy)

    def _packed_logits(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._run(input_ids=self._own(tokens), **self._places(positions)).logits
        return logits

    def _logits_and_routers(
        self, tokens: torch.Tensor, positions: torch.Tensor, **wanted: Any
    ) -> tuple[torch.Tensor, list[Sequence[torch.Tensor]]]:
        """And of each pass that the batch took what the routers of each layer did, if that is wanted."""
        if not self._apart:
            output = self._run(input_ids=tokens, **self._places(positions), **wanted)
            return output.logits, [output.get("router_logits") or ()]
        made: torch.Tensor | None = None
        routers: list[Sequence[torch.Tensor]] = []
        for documents in unpack(tokens, positions, every_length=self.settings.zero_stage == 3):
            output = self._run(input_ids=documents.tokens, **wanted)
            logits = output.logits
            made = logits.new_zeros(*tokens.shape, *logits.shape[2:]) if made is None else made
            made = documents.put(logits, made)
            if wanted:
                routers.append([layer[documents.there.flatten()] for layer in output.get("router_logits") or ()])
        assert made is not None  # noqa: S101 -- a batch has a document
        return made, routers

    def _places(self, positions: torch.Tensor) -> dict[str, Any]:
        """How the model is told where documents begin."""
        implementation = self.model.config._attn_implementation
        if self._shared:
            self._shared.begin(self.model.config, positions)
        return {"position_ids": self._own(positions), **boundaries(implementation, positions)}

    def _own(self, rows: torch.Tensor) -> torch.Tensor:
        """What the rank computes of rows (rows, length): all, or its part where ranks share them."""
        return self._shared.own(rows) if self._shared else rows

    def _run(self, **inputs: Any) -> Any:
        with self._autocast():
            return self._engine(**inputs, use_cache=False)

    def _autocast(self) -> AbstractContextManager[Any]:
        """On CPU bfloat16 is for the products only; on CUDA DeepSpeed keeps the weights in it."""
        if self.bfloat16 and self.group.device.type == "cpu":
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return nullcontext()
