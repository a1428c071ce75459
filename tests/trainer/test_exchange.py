"""Processes tell each other JSON and numbers; a pickle from a stranger runs nothing."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from llm_trainer.runtime import exchange
from llm_trainer.runtime.exchange import ExchangeError, array_bytes, array_of, bounded
from tests.trainer.pods import ROOT, free_port

# Rank 1 of two is a stranger who has got in.
PROCESS = """
import os, pickle, sys
import numpy as np
import torch
import torch.distributed as dist
from pydantic import TypeAdapter
from llm_trainer.runtime import exchange, gate
from llm_trainer.runtime.process_group import ProcessGroup
rank = int(os.environ["RANK"])
meeting = gate.open_meeting(rank, 2, "127.0.0.1", int(os.environ["MASTER_PORT"]), b"token")
os.environ.update(meeting.environment())
group = ProcessGroup.from_environment("cpu")
group.join()
texts, arrays = TypeAdapter(list[str]), [np.array([[rank, np.nan]], np.float32)]
assert group.gather(["語"] * rank, texts) == [[], ["語"]]
assert group.first(["a"] if rank == 0 else ["b"], texts) == ["a"]
assert [a[0, 0] for a in group.gather_array(arrays[0])] == [0.0, 1.0]
assert group.first_array(None) is None
assert np.isnan(group.first_array(arrays[0])[0, 1])
told = [None, None]
dist.all_gather_object(told, ["a text", rank, 0.5, None])
assert told == [["a text", 0, 0.5, None], ["a text", 1, 0.5, None]]
class Planted:
    def __reduce__(self):
        return os.mkdir, (sys.argv[1],)
if rank == 0:
    for ask in (lambda: dist.all_gather_object([None, None], "a"), lambda: group.gather(["a"], texts)):
        try:
            ask()
        except ValueError as error:  # of pydantic
            print("refused", flush=True)
        except exchange.ExchangeError as error:
            print("refused", flush=True)
else:
    with exchange.pickles_allowed(needed=True):
        message = pickle.dumps(Planted())
        class Raw:
            def __init__(self, stream): self.stream = stream
            def dump(self, value): self.stream.write(message)
            def load(self): return None
        dist.distributed_c10d._pickler = dist.distributed_c10d._unpickler = Raw
        dist.all_gather_object([None, None], None)
    exchange.gather_bytes(message, group.device)
group.leave()
meeting.end()
"""


def test_a_pickle_of_another_process_runs_nothing(tmp_path: Path) -> None:
    port, mark = str(free_port()), tmp_path / "planted"
    shared = {
        **os.environ, "PYTHONPATH": str(ROOT / "trainer_image"), "DS_ACCELERATOR": "cpu", "LOCAL_RANK": "0",
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(mark)], env={**shared, "RANK": str(rank)}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    ends = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    assert ends[0][0].count("refused") == 2
    assert not mark.exists()


@pytest.mark.parametrize("length", [-1, exchange.MESSAGE_BYTES + 1, 2**62])
def test_a_message_of_any_size_takes_no_memory(length: int) -> None:
    with pytest.raises(ExchangeError, match="bytes at once"):
        bounded(length)


def test_what_is_no_array_of_numbers_is_refused() -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{"an": "object"}], dtype=object))
    for message in (stream.getvalue(), pickle.dumps([1]), b"", b"\x93NUMPY"):
        with pytest.raises(ExchangeError, match="no array of numbers"):
            array_of(message)
    assert array_of(array_bytes(np.arange(3.0))).tolist() == [0.0, 1.0, 2.0]


def test_another_torch_without_the_names_is_no_silent_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.distributed.distributed_c10d, "_unpickler")
    with pytest.raises(RuntimeError, match="collectives would pickle"):
        exchange.forbid_pickles()
