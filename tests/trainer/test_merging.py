"""An adapter becomes part of its base in float32, whatever the base is stored as and the stage computes by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora import Linear
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from llm_trainer.checkpoint.files import MANIFEST, FolderManifest
from llm_trainer.config import Lora
from llm_trainer.models import attention
from llm_trainer.models.build import from_folder
from llm_trainer.models.low_rank import lora_config, merged
from tests.trainer.tiny import tiny

SAMPLE = torch.arange(3, 35)[None]


def adapted(folder: Path, family: str, dtype: torch.dtype) -> PreTrainedModel:
    """Base and adapter below the folder; the two side by side, in float32."""
    model = tiny(family).to(dtype)
    model.save_pretrained(folder / "base")
    beside = get_peft_model(model, lora_config(model, Lora(rank=4, alpha=8), "CAUSAL_LM"))
    torch.manual_seed(1)
    for name, weight in beside.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    beside.save_pretrained(folder / "adapter")
    return PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32), folder / "adapter"
    ).eval()


@pytest.mark.parametrize("family", ["llama", "mamba", "gpt_oss", "qwen3_moe"])
@torch.no_grad()
def test_a_base_in_bfloat16(family: str, tmp_path: Path) -> None:
    """It stays in bfloat16, each weight the nearest to that of float32."""
    expected = adapted(tmp_path, family, torch.bfloat16).merge_and_unload()
    whole = merged(tmp_path / "base", tmp_path / "adapter")
    stored = load_file(tmp_path / "base" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    for name, tensor in whole.state_dict().items():
        assert tensor.dtype == torch.bfloat16, name
        assert torch.equal(tensor, expected.state_dict()[name].bfloat16()), name


def test_weights_of_several_types(tmp_path: Path) -> None:
    """What a family keeps in float32 beside bfloat16 stays so."""
    adapted(tmp_path, "deepseek_v3", torch.bfloat16)
    file = tmp_path / "base" / "model.safetensors"
    state = load_file(file)
    bias = next(name for name in state if name.endswith("e_score_correction_bias"))
    state[bias] = torch.full_like(state[bias], 0.1, dtype=torch.float32)
    save_file(state, file, {"format": "pt"})
    found = merged(tmp_path / "base", tmp_path / "adapter").state_dict()
    assert found[bias].dtype == torch.float32
    assert torch.equal(found[bias], state[bias])
    assert found["lm_head.weight"].dtype == torch.bfloat16


@torch.no_grad()
def test_a_stage_from_an_adapter_where_attention_is_of_cuda_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merged by what a CPU computes by; the stage's own attention comes after it."""
    expected = adapted(tmp_path, "llama", torch.float32)(input_ids=SAMPLE).logits
    manifest = FolderManifest(kind="adapter", step=1, attempt=1, base="pvc://claim/base", files=[])
    (tmp_path / "claim").mkdir()
    (tmp_path / "base").rename(tmp_path / "claim" / "base")
    (tmp_path / "adapter" / MANIFEST).write_text(manifest.model_dump_json(by_alias=True))
    gpu = attention.Machine((9, 0), flash_attn=False)
    monkeypatch.setattr(attention.Machine, "here", lambda: gpu)
    model = from_folder(tmp_path / "adapter", str(tmp_path), half=True)
    assert model.config._attn_implementation == attention.VARLEN
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    model.set_attn_implementation("sdpa")
    assert torch.allclose(model.eval()(input_ids=SAMPLE).logits, expected, atol=1e-5)


@pytest.mark.parametrize("strength", [1e-4, 0.1, 3.0])
def test_a_wrong_merge_is_told_however_strong_the_adapter(
    strength: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a right one is none, though a strong adapter makes rounding larger."""
    adapted(tmp_path, "llama", torch.float32)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    state = {name: w * 10 * strength if "lora_B" in name else w for name, w in load_file(file).items()}
    save_file(state, file, {"format": "pt"})
    merged(tmp_path / "base", tmp_path / "adapter")

    merge, seen = Linear.merge, []

    def forgetful(self: Linear, **_: object) -> None:
        """Merges all but one layer's."""
        seen.append(self)
        if len(seen) == 3:
            next(iter(self.lora_B.values())).weight.data.zero_()
        merge(self)

    monkeypatch.setattr(Linear, "merge", forgetful)
    with pytest.raises(RuntimeError, match=r"moved what model\.layers\.\d.* says by"):
        merged(tmp_path / "base", tmp_path / "adapter")
