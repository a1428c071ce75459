"""Liger's kernel on a GPU, which the tests on CPU play by a plain one."""

from __future__ import annotations

import pytest
import torch

from llm_trainer.models.gated_mlps import computes_right, fuse_gated_mlps, liger_product
from tests.trainer.test_gated_mlps import learned, model_of

CUDA = torch.device("cuda")

pytest.importorskip("liger_kernel", reason="liger-kernel is not installed")


@pytest.mark.parametrize("width", [704, 11008, 14336, 28672])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_computes_what_torch_does(width: int, dtype: torch.dtype) -> None:
    product = liger_product()
    assert product
    assert computes_right(product, {width}, CUDA, dtype)


def test_a_model_learns_by_it_as_without() -> None:
    plain, fused = model_of("llama").to(CUDA), model_of("llama").to(CUDA)
    assert fuse_gated_mlps(fused, CUDA, torch.float32) == 2
    (loss, gradients), (other, others) = learned(plain), learned(fused)
    assert other == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
