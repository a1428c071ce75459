"""The model's own answers to a few prompts of the user's."""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from llm_trainer.config import DatasetCheck, FineTuning, StageConfig, TrainingSettings
from llm_trainer.data.rendering import Prompt, encode_prompt
from llm_trainer.data.rows import read_rows
from llm_trainer.models.engine import Engine
from llm_trainer.models.limits import check_length
from llm_trainer.rl.rollout import own_sampling, rollout_ends
from llm_trainer.runtime.run import Run

Sample = dict[str, str]  # prompt, answer


def samples_of(
    run: Run, settings: TrainingSettings, engine: Engine, tokenizer: PreTrainedTokenizerBase, step: int
) -> list[Sample]:
    """An answer to each prompt, on every rank; a collective.

    Raises ConfigurationError for a prompt that is too long for the model.
    """
    evaluation, in_turns = settings.evaluation, converses(run.config, settings)
    written: list[Prompt] = [[{"role": "user", "content": text}] if in_turns else text for text in evaluation.prompts]
    prompts = [encode_prompt(tokenizer, prompt) for prompt in written]
    for index, tokens in enumerate(prompts):
        field = f"evaluation.prompts[{index}]: with maxNewTokens {evaluation.max_new_tokens} its length"
        check_length(engine.model, len(tokens) + evaluation.max_new_tokens, field)
    torch.manual_seed(settings.seed + step)  # the same on every rank
    answers = [answer(engine, tokenizer, tokens, how(settings, engine, tokenizer)) for tokens in prompts]
    return [{"prompt": prompt, "answer": text} for prompt, text in zip(evaluation.prompts, answers, strict=True)]


def how(settings: TrainingSettings, engine: Engine, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    ends, temperature = rollout_ends(engine, tokenizer), settings.evaluation.temperature
    drawn: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    return GenerationConfig(
        use_cache=True,
        max_new_tokens=settings.evaluation.max_new_tokens,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0],
        **(drawn if temperature else {"do_sample": False}),
    )


@torch.no_grad()
def answer(engine: Engine, tokenizer: PreTrainedTokenizerBase, tokens: list[int], generation: GenerationConfig) -> str:
    """One at a time: a model with a state would see what fills a shorter prompt up."""
    given = torch.tensor([tokens], device=engine.group.device)
    with engine.whole() as model, own_sampling(model):
        made = model.generate(input_ids=given, attention_mask=torch.ones_like(given), generation_config=generation)
    text: str = tokenizer.decode(made[0, len(tokens) :].tolist(), skip_special_tokens=True)
    return text


def converses(config: StageConfig, settings: TrainingSettings) -> bool:
    """Whether the stage's rows are conversations, so that a prompt is a user's turn; else it is text to go on with."""
    if not isinstance(settings, FineTuning):
        return False
    row = next(iter(read_rows(DatasetCheck.of(settings, f"stage {config.stage!r}"), config.volumes_root)), {})
    return any(isinstance(row.get(column), list) for column in ("messages", "prompt", "chosen"))
