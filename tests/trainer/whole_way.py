"""Every tiny family through the trainer's own engine, in one process: what `test_whole_way` runs and judges.

`python -m tests.trainer.whole_way FOLDER`: one line of JSON for each family.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from llm_trainer.config import Architecture, Lora, Pretrain
from llm_trainer.models.adapter import Base
from llm_trainer.models.build import from_architecture, from_folder
from llm_trainer.models.engine import Engine
from llm_trainer.models.export import write_model
from llm_trainer.models.low_rank import lora_config, merged, write_adapter
from llm_trainer.runtime.process_group import ProcessGroup
from tests.trainer.tiny import ALL, VOCABULARY

OPTIMIZER = {"learningRate": 0.01, "weightDecay": 0.0}
SETTINGS = Pretrain.model_validate(
    {"sequenceLength": 16, "steps": 2, "zeroStage": 1, "precision": "float32", "optimizer": OPTIMIZER}
)


ALONE = ProcessGroup(0, 0, 1, torch.device("cpu"))
TOKENS = torch.randint(3, VOCABULARY, (2, 17), generator=torch.Generator().manual_seed(1))
POSITIONS = torch.tensor([[*range(6), *range(10)], [*range(16)]])


def steps(engine: Engine) -> list[float]:
    """The loss before each of three optimizer steps on one packed batch."""
    found = []
    for _ in range(3):
        engine.set_learning_rate(1.0)
        nats = engine.nats(TOKENS[:, :-1], POSITIONS, TOKENS[:, 1:])[0]
        engine.backward(nats / TOKENS[:, 1:].numel())
        assert engine.step()
        found.append(float(nats) / TOKENS[:, 1:].numel())
    return found


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        made: torch.Tensor = model.eval()(input_ids=TOKENS, use_cache=False).logits
    return made


def pretrain(start: Path, folder: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    engine = Engine(from_folder(start, str(folder), half=False), SETTINGS, ALONE, 1)
    losses = steps(engine)
    (folder / "trained").mkdir()
    write_model(tokenizer, engine.weights(), folder / "trained", scores=False)
    again = AutoModelForCausalLM.from_pretrained(folder / "trained")
    return {"losses": losses, "reload": float((logits(again) - logits(engine.model)).abs().max())}


def lora(start: Path, folder: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """`untouched`: adapted layers that no gradient reached."""
    from peft import get_peft_model

    model = from_folder(start, str(folder), half=False)
    torch.manual_seed(0)
    adapted = get_peft_model(model, lora_config(model, Lora(rank=2, alpha=8), "CAUSAL_LM"))
    engine = Engine(adapted, SETTINGS, ALONE, 1)
    losses = steps(engine)
    untouched = [name for name, weight in adapted.named_parameters() if "lora_B" in name and not weight.any()]
    state = engine.trained_state()
    base = Base(f"pvc://claim/{start.name}", start, None)
    write_adapter(adapted, state, tokenizer, base, None, folder / "adapter")
    beside, whole = logits(adapted), logits(merged(start, folder / "adapter"))
    return {"losses": losses, "untouched": untouched, "merged": float((whole - beside).abs().max())}


def way(family: str, folder: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    torch.manual_seed(0)
    model = from_architecture(Architecture(family=family, config=ALL[family]), tokenizer)
    start = folder / "start"
    model.save_pretrained(start)
    scores = type(model.config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    return {
        "class": type(model).__name__,
        "scores": scores,
        "pretrain": pretrain(start, folder, tokenizer),
        "lora": lora(start, folder, tokenizer),
    }


def main(folder: Path) -> None:
    import deepspeed

    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    words = {f"w{index}": index for index in range(VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="w0")))
    for family in ALL:
        try:
            found = way(family, folder / family, tokenizer)
        except Exception as error:  # noqa: BLE001 -- told by the test of that family
            found = {"error": f"{type(error).__name__}: {error}"[:2000]}
        print("found " + json.dumps({"family": family, **found}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
