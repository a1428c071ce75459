"""Runs in a pod of the trainer image: vLLM's log-probabilities of each model in a folder, against those beside it.

Once on this CPU as it is, once as if it had no AVX-512: vLLM has other kernels for each. Every model has a process of
its own: vLLM does not clean up after one that it failed to load, and a kernel may end the process. Imports nothing of
ours: the test copies this file to the claim on which the models are.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

EXPECTED = "expected.json"  # [{"prompt": [token], "continuation": [token], "logProbs": [nats of all but the first]}]
AS_IT_IS, WITHOUT_AVX512 = "as it is", "without AVX-512"


def hide_avx512() -> None:
    """From torch and oneDNN by their variables, from vLLM by what it asks; call it before any of them is imported."""
    os.environ |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    import torch

    for extension in ("avx512", "avx512_bf16", "vnni", "amx_tile", "amx_fp16"):
        setattr(torch.cpu, f"_is_{extension}_supported", lambda: False)


def difference(folder: Path, arguments: Sequence[str]) -> float:
    """The largest one of any token, in nats; ``arguments``: those of `vllm serve`."""
    from vllm import LLM, EngineArgs, SamplingParams
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args([f"--model={folder}", *arguments])
    engine = LLM.from_engine_args(EngineArgs.from_cli_args(parsed))
    worst = 0.0
    for known in json.loads((folder / EXPECTED).read_text()):
        prompt, continuation = known["prompt"], known["continuation"]
        sampling = SamplingParams(
            max_tokens=len(continuation), temperature=0, ignore_eos=True, logprobs=0, prompt_logprobs=0
        )
        [output] = engine.generate([{"prompt_token_ids": prompt}], sampling, use_tqdm=False)
        made = output.outputs[0]
        if list(made.token_ids) != continuation:
            raise ValueError(f"continues with {list(made.token_ids)}, transformers with {continuation}")
        entries = [*output.prompt_logprobs[1:], *made.logprobs]
        told = [entry[token].logprob for token, entry in zip([*prompt[1:], *continuation], entries, strict=True)]
        worst = max(worst, *(abs(one - other) for one, other in zip(told, known["logProbs"], strict=True)))
    return worst


def apart(task: Callable[[], None]) -> int:
    """Run it in a process of its own; its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        task()
        sys.stdout.flush()
        os._exit(0)  # vLLM's own end of a process takes long, and may fail
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def tell(family: str, cpu: str, **said: Any) -> None:
    print(json.dumps({"family": family, "cpu": cpu, **said}), flush=True)


def try_model(folder: Path, cpu: str, arguments: Sequence[str]) -> None:
    try:
        tell(folder.name, cpu, difference=difference(folder, arguments))
    except Exception as error:  # noqa: BLE001 -- the next model has its own turn
        tell(folder.name, cpu, error=f"{type(error).__name__}: {error}")


def try_models(root: Path, cpu: str, arguments: Sequence[str]) -> None:
    """One line of JSON for each model: its folder's name and the difference, or the error."""
    if cpu == WITHOUT_AVX512:
        hide_avx512()
    import vllm.entrypoints.llm  # noqa: F401 -- once for all models

    for folder in sorted(path.parent for path in root.glob(f"*/{EXPECTED}")):
        if ended := apart(partial(try_model, folder, cpu, arguments)):
            tell(folder.name, cpu, error=f"its process ended with {ended}")


def main(root: Path, arguments: Sequence[str]) -> None:
    for cpu in (AS_IT_IS, WITHOUT_AVX512):
        apart(partial(try_models, root, cpu, arguments))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
