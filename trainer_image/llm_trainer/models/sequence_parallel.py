"""Rows longer than a GPU holds: neighbouring ranks share each row, a part of its tokens each.

Ulysses (Jacobs et al. 2023): all of a layer but its attention is computed token by token. For the attention the ranks
exchange, so that each has all tokens of some heads, and exchange back. DeepSpeed's own (UlyssesSPAttentionHF) drops the
mask by which SDPA keeps packed documents apart, and wants values as wide as the keys; its differentiable exchange is
taken from it. To ZeRO these ranks are like others: each one's gradient is that of its tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed
from torch.nn import Module
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_masks_for_generate
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from llm_trainer.models.attention import FLASH, VARLEN
from llm_trainer.models.packing import innermost
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.process_group import ProcessGroup

FIELD = "sequenceParallel"
CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d)  # over tokens, and in a new model so weak that logits hardly tell
SDPA = "sdpa"
SHARED = "shared_rows"  # attribute of a model's modules
TOLERANCE, BFLOAT16_TOLERANCE = 1e-5, 0.05  # of the logits, by which a model with shared rows may differ from itself
CHECKED_TOKENS = 16  # of each rank, in the rows by which that is seen
CHECKED_DOCUMENT = 11  # tokens of each document in them: some lie on two ranks


class SharedRows:
    """The rank's part of its rows, and the group of ranks that have the rest."""

    def __init__(self, size: int, group: ProcessGroup) -> None:
        """A collective of all ranks. ``size``: ranks that share a row; they follow each other, so a node holds them."""
        from deepspeed.sequence.layer import register_all_to_all_group

        self.size, self.place = size, group.rank % size
        self.active = True
        self._masks: Any = None
        for first in range(0, group.world_size, size):
            made = distributed.new_group(range(first, first + size))
            if first <= group.rank < first + size:
                self.ranks = made
        register_all_to_all_group(self.ranks)

    def own(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, length, …) → (rows, length / size, …)."""
        return rows.chunk(self.size, dim=1)[self.place] if self.active else rows

    def begin(self, config: PreTrainedConfig, positions: torch.Tensor) -> None:
        """Before a forward pass, for which the masks of whole rows are made. ``positions``: (rows, length), whole."""
        self._masks = None
        if self.active and config._attn_implementation == SDPA:
            like = torch.empty(*positions.shape, 0, device=positions.device)
            self._masks = create_masks_for_generate(config, like, None, None, position_ids=positions)

    def mask(self, module: Module) -> torch.Tensor | None:
        """Of a layer, for whole rows. It stays until the next pass: a layer may be computed again going backward."""
        if not isinstance(self._masks, dict):
            return self._masks  # type: ignore[no-any-return]
        kinds = module.config.get_text_config().layer_types  # type: ignore[operator, union-attr]
        mask: torch.Tensor | None = self._masks[kinds[module.layer_idx]]
        return mask

    def all_tokens(self, states: torch.Tensor) -> torch.Tensor:
        """(rows, heads, own tokens, width) → (rows, own heads, tokens, width).

        Where there are fewer heads of keys than ranks, several ranks get the same.
        """
        again = self.size // math.gcd(states.shape[1], self.size)
        states = states.repeat_interleave(again, dim=1) if again > 1 else states
        parts = self._exchange(torch.stack(states.chunk(self.size, dim=1)))
        return torch.cat(tuple(parts), dim=2)

    def own_tokens(self, states: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, own heads, width) → (rows, own tokens, heads, width)."""
        parts = self._exchange(torch.stack(states.chunk(self.size, dim=1)))
        return torch.cat(tuple(parts), dim=2)

    def _exchange(self, parts: torch.Tensor) -> torch.Tensor:
        from deepspeed.sequence.layer import _dim_zero_all_to_all

        made: torch.Tensor = _dim_zero_all_to_all(self.ranks, parts)
        return made

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Over the ranks that share the rows; without a gradient."""
        if not self.active:
            return values
        summed = values.detach().clone()
        distributed.all_reduce(summed, group=self.ranks)
        return summed / self.size

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Each rank computes all of its rows, as a model without shared rows does."""
        self.active = False
        yield
        self.active = True


def share_rows(model: PreTrainedModel, size: int, group: ProcessGroup) -> SharedRows:
    """Let the ranks share the rows of a model. Raises ConfigurationError where it is not of a kind that can."""
    check_sequence_parallel(model.config, size)
    shared = SharedRows(size, group)
    for module in model.modules():
        setattr(module, SHARED, shared)
    implementation = model.config._attn_implementation
    whole = ALL_ATTENTION_FUNCTIONS[implementation]
    if not getattr(whole, SHARED, False):
        AttentionInterface.register(implementation, attention_of_shared_rows(whole))
    return shared


def attention_of_shared_rows(whole: Any) -> Any:
    """In the place of an attention of transformers, under its name, by which models know what else it needs."""

    def attention(
        module: Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **named: Any
    ) -> Any:
        shared: SharedRows | None = getattr(module, SHARED, None)
        if shared is None or not shared.active:
            return whole(module, query, key, value, mask, **named)
        query, key, value = map(shared.all_tokens, (query, key, value))
        with heads_per_key(module, query.shape[1] // key.shape[1]):
            made, weights = whole(module, query, key, value, shared.mask(module), **named)
        return shared.own_tokens(made), weights

    setattr(attention, SHARED, True)
    return attention


@contextmanager
def heads_per_key(module: Module, count: int) -> Iterator[None]:
    """SDPA asks the layer, which doesn't know that heads of keys were given to several ranks."""
    before = getattr(module, "num_key_value_groups", None)
    if before is not None:
        module.num_key_value_groups = count  # type: ignore[assignment]
    yield
    if before is not None:
        module.num_key_value_groups = before


def check_sequence_parallel(config: PreTrainedConfig, size: int) -> None:
    """Raises ConfigurationError for a model whose rows can't be shared."""
    family, text = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), PreTrainedModel), config.get_text_config(decoder=True)
    name, heads = config.model_type, int(getattr(text, "num_attention_heads", 0) or 0)
    if config._attn_implementation not in (SDPA, VARLEN, FLASH) or not family.is_backend_compatible():
        raise ConfigurationError(
            f"{FIELD}: {size} is not for the family {name}, whose attention transformers lets nobody replace; use 1"
        )
    if heads % size:
        raise ConfigurationError(f"{FIELD}: the model's {heads} attention heads are not divisible by {size}")


@torch.no_grad()
def check_shared_rows(
    shared: SharedRows,
    logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    model: PreTrainedModel,
    group: ProcessGroup,
    *,
    apart: bool,
    bfloat16: bool,
) -> None:
    """Whether the model's own logits are the same with shared rows, asked of itself; `logits`: of tokens and positions.

    Raises ConfigurationError if not, or if it needs a row for each document (`apart`): then more than its attention
    looks at several tokens.
    """
    learns, vocabulary = model.training, innermost(model).get_input_embeddings().num_embeddings  # type: ignore[operator]
    length = shared.size * CHECKED_TOKENS
    places = torch.arange(length, device=group.device).expand(2, -1)
    tokens, positions = places.remainder(vocabulary), places.remainder(CHECKED_DOCUMENT)
    model.eval()
    off = math.inf
    if not apart and not any(isinstance(module, CONVOLUTIONS) for module in model.modules()):
        with shared.whole():
            whole = logits(tokens, positions)
        whole = shared.own(whole).float()
        off = float((logits(tokens, positions).float() - whole).norm() / whole.norm())
    model.train(learns)
    if group.any(not off <= (BFLOAT16_TOLERANCE if bfloat16 else TOLERANCE)):
        raise ConfigurationError(
            f"{FIELD}: {shared.size} is not for this {model.config.model_type} model: it computes otherwise when rows "
            "are shared, so a layer beside its attention looks at several tokens; use 1"
        )
