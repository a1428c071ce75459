"""The product of a gated MLP (SwiGLU) by Liger's kernel, on a GPU alone: one pass over memory for torch's three, and
one activation as wide as the MLP less is kept (Hsu et al. 2024, "Liger Kernel", section 3.2).

Which modules take it, and whether the kernel computes what torch does on this device, is found by asking them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any

import torch
from torch.nn import Module
from torch.nn.functional import silu

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # silu(gate) × up, of one shape

PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")
SWITCH = "LLM_LIGER"  # variable: 0 leaves it to torch
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # of the largest number
ROWS = 64


def fuse_gated_mlps(model: Module, device: torch.device, dtype: torch.dtype) -> int:
    """In place; how many. ``dtype``: in which they compute. 0 where the kernel is away, or is wrong here."""
    product = liger_product()
    found = [module for module in model.modules() if is_gated_mlp(module)] if product else []
    if product is None or not computes_right(product, widths_of(found), device, dtype):
        return 0
    for module in found:
        module.forward = MethodType(forward_by(product), module)
    return len(found)


def liger_product() -> Product | None:
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        from liger_kernel.ops import LigerSiLUMulFunction
    except ImportError:
        return None
    applied: Product = LigerSiLUMulFunction.apply
    return applied


def forward_by(product: Product) -> Callable[..., torch.Tensor]:
    def forward(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.down_proj(product(self.gate_proj(hidden), self.up_proj(hidden)))
        return made

    return forward


def widths_of(modules: Iterable[Module]) -> set[int]:
    """Of their inner states; an adapter's layers tell them too."""
    return {int(module.gate_proj.out_features) for module in modules}  # type: ignore[arg-type,union-attr]


@torch.no_grad()
def is_gated_mlp(module: Module) -> bool:
    """Whether its own forward is down(silu(gate(x)) × up(x)), and nothing else: asked with stand-ins for its layers."""
    parts = [getattr(module, name, None) for name in PARTS]
    if not all(isinstance(part, Module) for part in parts) or not hasattr(module.gate_proj, "out_features"):
        return False
    stand_ins: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
        lambda hidden: hidden * 3 - 1, lambda hidden: hidden * 2 + 1, lambda hidden: hidden * 5 + 7,
    )  # fmt: skip
    gate, up, down = stand_ins
    saved = [(part, vars(part).get("forward")) for part in parts[:3]]
    given = torch.linspace(-2, 2, 8)[None, None]
    try:
        for part, stand_in in zip(parts, stand_ins, strict=False):
            vars(part)["forward"] = stand_in
        made = module.forward(given)
    except Exception:  # noqa: BLE001 -- a forward that goes another way is taken as it is
        return False
    finally:
        for part, own in saved:
            del vars(part)["forward"]
            if own is not None:
                vars(part)["forward"] = own
    return isinstance(made, torch.Tensor) and torch.allclose(made, down(silu(gate(given)) * up(given)))


def computes_right(product: Product, widths: Iterable[int], device: torch.device, dtype: torch.dtype) -> bool:
    """Whether values and gradients are torch's, on this device and of these widths; what it can't be told is not."""
    try:
        return all(near(product, width, device, dtype) for width in widths)
    except Exception as error:  # noqa: BLE001 -- a compiler or a driver that is missing; the stage runs without
        print(f"Liger's kernel can't run here, torch computes the gated MLPs: {error}", flush=True)
        return False


def near(product: Product, width: int, device: torch.device, dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(1, ROWS, width, generator=generator).to(device, dtype) for _ in range(3)]
    found, wanted = (values_and_gradients(one, drawn) for one in (product, plain_product))
    apart = [
        float((one.float() - other.float()).abs().max() / other.float().abs().max())
        for one, other in zip(found, wanted, strict=True)
    ]
    right = all(share <= TOLERANCE[dtype] for share in apart)  # NaN is not
    if not right:
        shown = ", ".join(f"{share:.1e}" for share in apart)
        print(f"Liger's kernel is {shown} from torch's, which computes the gated MLPs", flush=True)
    return right


def plain_product(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return silu(gate) * up


def values_and_gradients(product: Product, drawn: list[torch.Tensor]) -> list[torch.Tensor]:
    gate, up = (part.clone().requires_grad_() for part in drawn[:2])
    made = product(gate * 1, up * 1)  # not the leaves: the kernel writes gradients over what it was given
    return [made.detach(), *torch.autograd.grad(made, (gate, up), drawn[2])]
