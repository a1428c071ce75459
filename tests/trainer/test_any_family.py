"""Models that people bring: what is computed by shortcuts is what transformers itself computes, family by family."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from llm_trainer.models.language_loss import IGNORED, add_loss, gives_the_product
from llm_trainer.models.packing import KEEP_APART, leaks, runs_on, unpack
from tests.trainer.tiny import ALL, VOCABULARY, tiny

SCALE = {
    "granite": {"logits_scaling": 3.0},
    "granitemoe": {"logits_scaling": 3.0},
    "falcon_h1": {"lm_head_multiplier": 3.0},
}
OTHERWISE = {"gemma2", "cohere", "opt", *SCALE}  # opt's forward passes its base by


@pytest.mark.parametrize("family", ALL)
@torch.no_grad()
def test_the_loss_is_that_of_the_logits(family: str) -> None:
    """Also where a family scales its logits or caps them."""
    model = tiny(family, **SCALE.get(family, {}))
    for weight in model.parameters():
        weight.mul_(4)  # logits large enough for a cap to matter
    tokens = torch.randint(3, VOCABULARY, (2, 11), generator=torch.Generator().manual_seed(1))
    targets = tokens.roll(-1, 1)
    targets[:, -1] = IGNORED
    logits = model(input_ids=tokens, use_cache=False).logits
    expected = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    assert gives_the_product(model) == (family not in OTHERWISE)
    add_loss(model)
    assert float(model(input_ids=tokens, targets=targets, use_cache=False).nats) == pytest.approx(float(expected), 1e-5)
    assert torch.equal(model(input_ids=tokens, use_cache=False).logits, logits), "and the logits are as before"


@pytest.mark.parametrize("family", ALL)
@torch.no_grad()
def test_documents_of_a_row_do_not_see_each_other(family: str) -> None:
    """Two rows; where the model lets them, which it is asked, each gets a row of its own."""
    model = tiny(family)

    def packed(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
        return logits

    apart = runs_on(model) or leaks(packed, VOCABULARY, torch.device("cpu"))
    assert not (apart and family in KEEP_APART)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, VOCABULARY, (2, 20), generator=generator)
    positions = torch.tensor([[*range(8), *range(12)], [*range(15), *range(5)]])
    if apart:
        made = torch.zeros(2, 20, VOCABULARY)
        for documents in unpack(tokens, positions):
            made = documents.put(model(input_ids=documents.tokens, use_cache=False).logits, made)
    else:
        made = packed(tokens, positions)
    for row, begin, end in ((0, 0, 8), (0, 8, 20), (1, 0, 15), (1, 15, 20)):
        alone = model(input_ids=tokens[row, begin:end][None], use_cache=False).logits[0]
        assert torch.allclose(made[row, begin:end], alone, atol=1e-4), (row, begin, apart)
