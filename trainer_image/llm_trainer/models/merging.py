"""How an adapter becomes part of its base: each weight as it is read, so that no process needs the whole of both."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper, load_peft_weights, set_peft_model_state_dict
from torch import Tensor
from torch.nn import Module, Parameter
from transformers import PreTrainedModel

from llm_trainer.models.placement import whole

# Of what a layer says, with its adapter beside it against merged, relative to the largest. Measured in float32 on
# layers of random llamas: 1e-6 whatever the adapter; with one stronger than its base up to 5e-4 of what it does.
ROUNDING, SHARE = 1e-5, 1e-3
SAMPLE = 8  # rows


class Merging:
    """Merged and compared in float32, by what a CPU computes by, whatever the stage computes by: in bfloat16 rounding
    moves what a layer says more than a wrong merge may.
    """

    def __init__(self, model: PreTrainedModel, adapter: Path) -> None:
        """`model`: the base without its weights, on the meta device."""
        self.adapter = adapter
        beside = PeftModel.from_pretrained(model, adapter, low_cpu_mem_usage=True, torch_device="cpu").eval()
        fill(beside, adapter)
        self.modules = dict(beside.get_base_model().named_modules())
        self.waiting = {name: part for name, part in self.modules.items() if isinstance(part, BaseTunerLayer)}

    def __call__(self, name: str, weight: Tensor) -> Tensor:
        """The base's weight of that name with the adapter in it, of its type and where it was.

        Raises RuntimeError if the layer would say something else than with the adapter beside it.
        """
        path, _, leaf = name.rpartition(".")
        layer = adapted(self.modules.get(path), leaf)
        if layer is None:
            return weight
        owner = layer.get_base_layer()
        owner._parameters[leaf] = Parameter(weight.detach().to("cpu", torch.float32), requires_grad=False)
        if (bias := owner._parameters.get("bias")) is not None:
            owner._parameters["bias"] = Parameter(torch.zeros_like(bias, device="cpu"), requires_grad=False)
        self._merge(layer, name)
        merged, owner._parameters[leaf] = owner._parameters[leaf], Parameter(weight.detach().to("meta"))
        self.waiting = {key: part for key, part in self.waiting.items() if part is not layer}
        assert merged is not None  # noqa: S101 -- see above
        result: Tensor = merged.detach().to(weight.device, weight.dtype)
        return result

    def _merge(self, layer: BaseTunerLayer, name: str) -> None:
        before = said(layer)
        layer.enable_adapters(enabled=False)
        effect = relative(said(layer), before)
        layer.enable_adapters(enabled=True)
        layer.merge()
        difference = relative(said(layer), before)
        if not difference <= ROUNDING + SHARE * effect:
            raise RuntimeError(
                f"merging {self.adapter} moved what {name} says by {difference:.2e} of the largest, and the adapter "
                f"moves it by {effect:.2e}"
            )

    def finish(self, model: PreTrainedModel) -> None:
        """Modules that the adapter keeps whole, such as a head that scores; a collective if the model is spread.

        Raises RuntimeError for a part of the adapter that went nowhere.
        """
        if self.waiting:
            raise RuntimeError(
                f"merging {self.adapter}: the base has no weights of {', '.join(sorted(self.waiting)[:4])}"
            )
        for name, part in self.modules.items():
            if isinstance(part, ModulesToSaveWrapper):
                kept = part.modules_to_save[part.active_adapters[0]].state_dict()
                own = dict(model.get_submodule(name).named_parameters())
                with whole(own.values(), changed=True), torch.no_grad():
                    for key, weight in own.items():
                        weight.copy_(kept[key])


def fill(beside: PeftModel, adapter: Path) -> None:
    """The adapter's weights again, in float32: peft has moved them to where the base is, which keeps no contents."""
    for part in beside.modules():
        names = part.adapter_layer_names if isinstance(part, BaseTunerLayer) else ()
        for name in (*names, *(["modules_to_save"] if isinstance(part, ModulesToSaveWrapper) else [])):
            if isinstance(held := getattr(part, name, None), Module):
                held.to_empty(device="cpu")
    weights = {name: weight.float() for name, weight in load_peft_weights(str(adapter), device="cpu").items()}
    set_peft_model_state_dict(beside.float(), weights)


def adapted(module: Module | None, leaf: str) -> BaseTunerLayer | None:
    """Of a module of the base, what adapts the weight `leaf`; experts have a layer around another for each weight."""
    while isinstance(module, ParamWrapper):
        if module.parameter_name == leaf:
            return module
        module = module.base_layer
    return module if isinstance(module, BaseTunerLayer) and leaf == "weight" else None


def said(layer: BaseTunerLayer) -> Tensor:
    """For chosen inputs; of experts, whose outputs are their router's too, the weights as they are used."""
    if isinstance(layer, ParamWrapper):
        with layer._activate_lora([] if layer.disable_adapters or layer.merged else layer.active_adapters):
            used: Tensor = layer.get_param().detach().clone()
            return used
    if isinstance(layer.get_base_layer(), torch.nn.Embedding):
        inputs = torch.arange(SAMPLE) % layer.get_base_layer().num_embeddings
    else:
        inputs = torch.randn(SAMPLE, layer.in_features, generator=torch.Generator().manual_seed(0))
    output: Tensor = layer(inputs)
    return output


def relative(output: Tensor, to: Tensor) -> float:
    """Their largest difference, of the largest."""
    return float((output - to).abs().max() / to.abs().max())
