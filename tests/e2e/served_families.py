"""Runs in a pod of the trainer image: vLLM's log-probabilities of each model in a folder, against those beside it.

Imports nothing of ours: the test copies this file to the claim on which the models are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

EXPECTED = "expected.json"  # {"prompts": [[token, ...], ...], "logProbs": [[nats of each token but the first], ...]}


def difference(folder: Path) -> float:
    """The largest one of any token, in nats."""
    from vllm import LLM, SamplingParams

    expected = json.loads((folder / EXPECTED).read_text())
    engine = LLM(str(folder), dtype="float32", enforce_eager=True, max_model_len=128, max_num_seqs=4)
    prompts: Any = [{"prompt_token_ids": prompt} for prompt in expected["prompts"]]
    outputs = engine.generate(prompts, SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0), use_tqdm=False)
    worst = 0.0
    for output, prompt, known in zip(outputs, expected["prompts"], expected["logProbs"], strict=True):
        told = [entry[token].logprob for token, entry in zip(prompt[1:], output.prompt_logprobs[1:], strict=True)]
        worst = max(worst, *(abs(one - other) for one, other in zip(told, known, strict=True)))
    del engine
    return worst


def main(root: Path) -> None:
    """One line of JSON for each model: its folder's name and the difference, or the error."""
    for folder in sorted(path.parent for path in root.glob(f"*/{EXPECTED}")):
        try:
            said: dict[str, Any] = {"family": folder.name, "difference": difference(folder)}
        except Exception as error:  # noqa: BLE001 -- the next model has its own turn
            said = {"family": folder.name, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
