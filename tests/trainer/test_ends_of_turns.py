"""Where a model stops that learned a chat template, how its answers are sampled, and where a reward is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig, PreTrainedModel

from llm_trainer.config import Architecture, Grpo
from llm_trainer.data.rendering import Chat, end_of_turn
from llm_trainer.models.build import from_architecture
from llm_trainer.models.export import write_model
from llm_trainer.models.shards import Weights
from llm_trainer.models.value import ValueModel
from llm_trainer.rl.rewards import Rewards, scored_place
from llm_trainer.rl.rollout import generate, join, own_sampling
from llm_trainer.runtime.process_group import ProcessGroup
from tests.unit.trainer_data.templates import FAMILIES, tokenizer_of

ALONE = ProcessGroup(0, 0, 1, torch.device("cpu"))
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
SETTINGS = Grpo.model_validate(
    {
        "dataset": {"uri": "pvc://corpus/p.jsonl"},
        "rewards": [{"function": "a:b"}],
        "maxCompletionLength": 4,
        "microBatchSize": 2,
    }
)


def model_of(name: str) -> tuple[PreTrainedModel, Any]:
    tokenizer = tokenizer_of(name)
    torch.manual_seed(0)
    return from_architecture(Architecture(family="llama", config=SIZES), tokenizer), tokenizer


def engine_of(model: PreTrainedModel) -> Any:
    @contextmanager
    def whole() -> Iterator[PreTrainedModel]:
        yield model

    return SimpleNamespace(model=model, group=ALONE, whole=whole)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_published_model_stops_at_the_end_of_a_turn(name: str, tmp_path: Path) -> None:
    """Beside the end of text, and what it knew before; its own way to sample stays."""
    model, tokenizer = model_of(name)
    model.generation_config = GenerationConfig(eos_token_id=5, do_sample=True, top_p=0.9)
    write_model(tokenizer, Weights(model, model.state_dict(), None), tmp_path, scores=False)
    published = AutoModelForCausalLM.from_pretrained(tmp_path).generation_config
    end = tokenizer.convert_tokens_to_ids(FAMILIES[name].end)
    assert set(published.eos_token_id) == {tokenizer.eos_token_id, end, 5}
    assert published.top_p == 0.9


def test_a_model_with_one_end_stays_as_it_is(tmp_path: Path) -> None:
    model, tokenizer = model_of("mistral")
    write_model(tokenizer, Weights(model, model.state_dict(), None), tmp_path, scores=False)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("brought", "kept"),
    [
        ({"temperature": 0.6, "top_p": 0.9, "do_sample": False}, {"temperature": 0.6, "top_p": 0.9, "do_sample": True}),
        ({"temperature": 0.6}, {"temperature": 0.6, "do_sample": True}),
        ({"pad_token_id": -1, "top_k": 20}, {"top_k": None}),
    ],
)
def test_what_many_models_bring_is_published(brought: dict[str, Any], kept: dict[str, Any], tmp_path: Path) -> None:
    """Transformers reads a generation_config.json that it would not write; a stage found out at its end."""
    model, tokenizer = model_of("chatml")
    (tmp_path / "start").mkdir()
    (tmp_path / "start/generation_config.json").write_text(json.dumps({"eos_token_id": 1, **brought}))
    model.generation_config = GenerationConfig.from_pretrained(tmp_path / "start")
    (tmp_path / "published").mkdir()
    write_model(tokenizer, Weights(model, model.state_dict(keep_vars=True), None), tmp_path / "published", scores=False)
    published = json.loads((tmp_path / "published/generation_config.json").read_text())
    assert {name: published.get(name) for name in kept} == kept, published
    assert 1 in published["eos_token_id"]


def test_an_answer_ends_with_its_turn() -> None:
    model, tokenizer = model_of("chatml")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(tokenizer)))
        model.lm_head.bias[end] = 100
    answers = generate(engine_of(model), [[10, 11], [12]], SETTINGS, tokenizer)
    assert answers.completions() == [[end], [end]]
    assert answers.finished.all()


def test_answers_are_sampled_by_the_settings_alone() -> None:
    """By the whole distribution, whatever the model's own generation_config says; which it has again afterwards."""
    model, tokenizer = model_of("chatml")
    with torch.no_grad():
        model.lm_head.weight.zero_()  # every token is as likely as any other
    own = GenerationConfig(do_sample=True, top_k=1, top_p=0.01, min_p=1.0, repetition_penalty=9.0, typical_p=0.01,
                           epsilon_cutoff=0.9, eos_token_id=1, suppress_tokens=list(range(100, 400)))  # fmt: skip
    model.generation_config = own
    torch.manual_seed(0)
    written = generate(engine_of(model), [[10]] * 64, SETTINGS, tokenizer).completions()
    seen = {token for tokens in written for token in tokens}
    assert len(seen) > 100, sorted(seen)
    assert max(seen) >= 100
    assert model.generation_config is own


def test_an_adapter_hands_on_no_other_sampling() -> None:
    from peft import LoraConfig, get_peft_model

    model, _ = model_of("chatml")
    model.generation_config.min_p = 0.5
    kept = model.generation_config
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    with own_sampling(adapted):
        adapted.generate(input_ids=torch.tensor([[10]]), max_new_tokens=1)
        assert adapted.get_base_model().generation_config.min_p is None
    assert adapted.get_base_model().generation_config.min_p == kept.min_p == 0.5


@pytest.mark.parametrize("padding", ["<|pad|>", "<|endoftext|>", "<|im_end|>"])
@pytest.mark.parametrize("name", ["chatml", "phi", "llama-3", "mistral"])
def test_a_reward_is_read_where_it_was_learned(name: str, padding: str) -> None:
    """Of a rollout's tokens the same score as transformers gives to the conversation that the model learned from."""
    tokenizer = tokenizer_of(name)
    torch.manual_seed(1)
    config = from_architecture(Architecture(family="llama", config=SIZES), tokenizer).config
    config.num_labels, config.pad_token_id = 1, tokenizer.convert_tokens_to_ids(padding)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    chats = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        for q, a in (("one", "two"), ("is it?", "a b c"))
    ]
    chat, turn = Chat(tokenizer), end_of_turn(tokenizer)
    wholes = [chat.encode(turns, "").ids for turns in chats]
    prompts = [chat.encode(turns[:1], "", prompt=True).ids for turns in chats]
    completions = [
        whole[len(prompt) : len(whole) - len(turn.tail)] for prompt, whole in zip(prompts, wholes, strict=True)
    ]
    answers = join(prompts, completions, [turn.end or 0], 0, ALONE.device)
    assert answers.finished.all()
    network = SimpleNamespace(
        model=ValueModel(model),
        logits=lambda tokens, positions: ValueModel(model)(input_ids=tokens, position_ids=positions).logits,
    )
    rewards = SimpleNamespace(settings=SETTINGS, group=ALONE, turn=turn)
    with torch.no_grad():
        expected = [float(model(input_ids=torch.tensor([whole])).logits) for whole in wholes]
        found = Rewards._scores(rewards, network, answers, [turn.tail] * 2)  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_where_a_row_is_scored() -> None:
    assert scored_place([3, 4, 9], 9) == 1, "the padding is the end of text"
    assert scored_place([3, 4, 9], 0) == 2
    assert scored_place([3, 4, 9], None) == 2
    assert scored_place([9, 9], 9) == 1
