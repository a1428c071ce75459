"""What vLLM told stands where its answers stand. The engine itself needs a GPU: see docs/untested.md."""

from __future__ import annotations

import torch

from llm_trainer.rl.vllm_rollout import answers_of

END, PADDING = 9, 0


def test_log_probabilities_stand_at_their_tokens() -> None:
    told = [[[-0.1], [-0.2], [-0.3]], [[-0.4]]]
    answers = answers_of([[1, 2], [3, 4, 5]], [[6, END, 7], [8]], told, [END], PADDING, torch.device("cpu"))
    assert answers.completions() == [[6, END], [8]], "what comes after an end is no answer"
    assert answers.finished.tolist() == [True, False]
    assert answers.sampled is not None
    flat = answers.sampled[answers.answered]
    assert torch.allclose(flat, torch.tensor([-0.1, -0.2, -0.4])), answers.sampled
    assert not answers.sampled[~answers.answered].any()
