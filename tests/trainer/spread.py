"""Whether models that are spread as they are made, read and merged are those that they are as a whole.

`python -m tests.trainer.spread FOLDER FAMILY…`: a process of two, as the variables of torchrun say. It prints, by
family, the names of weights and buffers that differ.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

import torch
from torch import distributed
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.integrations import HfDeepSpeedConfig

from llm_trainer.models import scratch
from llm_trainer.models.low_rank import merged
from llm_trainer.models.placement import Placement, is_spread, whole
from llm_trainer.models.weights import check_folder, load
from tests.trainer.test_merging import adapted
from tests.trainer.tiny import tiny

SPREAD = Placement(torch.device("cpu"), torch.float32, spread=True)
MERGED = ("llama", "gpt_oss", "qwen3_moe")


def differences(made: PreTrainedModel, expected: PreTrainedModel) -> list[str]:
    wanted, state = expected.state_dict(), made.state_dict(keep_vars=True)
    found = [f"{name} is whole" for name, weight in made.named_parameters() if not is_spread(weight)]
    with whole(made.parameters()):
        found += [name for name in wanted if not torch.equal(state[name].detach(), wanted[name])]
    buffers = dict(made.named_buffers())
    found += [name for name, buffer in expected.named_buffers() if not torch.equal(buffers[name], buffer)]
    return found + sorted(state.keys() ^ wanted.keys())


def once(make: Callable[[], object]) -> None:
    if distributed.get_rank() == 0:
        make()
    distributed.barrier()


def way(family: str, folder: Path) -> dict[str, list[str]]:
    expected = tiny(family)
    once(lambda: expected.save_pretrained(folder, max_shard_size="20KB"))
    with mock.patch.object(scratch, "KEPT", 0):  # these are smaller than what is kept
        with redirect_stdout(StringIO()) as said:
            made = scratch.made(lambda: tiny(family), SPREAD)
        found = {"made": differences(made, expected), "whole": said.getvalue().splitlines()}
    found["read"] = differences(load(AutoModelForCausalLM, folder, placement=SPREAD), expected)
    if family in MERGED:
        once(lambda: adapted(folder, family, torch.bfloat16))
        both = folder / "base", folder / "adapter"
        as_in_a_stage = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})  # of TRL's, known while it lives
        found["merged"] = differences(merged(*both, SPREAD), merged(*both).float())
        check_folder(folder)
        del as_in_a_stage
    return found


def main(folder: Path, families: list[str]) -> None:
    import deepspeed

    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    print("found", json.dumps({family: way(family, folder / family) for family in families}), flush=True)
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
