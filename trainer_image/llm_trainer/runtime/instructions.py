"""Whether a CPU's matrix unit (AMX) works, which some virtual machines advertise and then trap.

With it products in bfloat16 are eight times as fast as in float32, without it they are slower (docs/figures.md); what
traps would end the process. So a child tries, before oneDNN has looked for what it may use, once in a process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

VARIABLE, WITHOUT = "ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16"  # of oneDNN
CPUINFO = Path("/proc/cpuinfo")
SECONDS = 20  # a child that takes longer is taken for one that failed


def choose_instructions(cpuinfo: Path = CPUINFO) -> None:
    """Before the first product of a process. What the user has set stays."""
    if VARIABLE in os.environ or "amx_bf16" not in cpuinfo.read_text():
        return
    if not survives(multiply):
        os.environ[VARIABLE] = WITHOUT


def has_matrix_unit(cpuinfo: Path = CPUINFO) -> bool:
    """Whether products in bfloat16 are made by it, once the instructions are chosen."""
    most = (os.environ.get(VARIABLE) or "ALL").upper()  # an empty one says nothing to oneDNN
    return "amx_bf16" in cpuinfo.read_text() and (most in ("ALL", "DEFAULT") or "AMX" in most)


def survives(work: Callable[[], bool]) -> bool:
    """Whether a child of this process does it, says True and lives."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        try:
            os._exit(0 if work() else 1)
        except BaseException:  # noqa: BLE001 -- nothing of the parent's may run in the child
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return status == 0


def multiply() -> bool:
    """A product that oneDNN makes by AMX where it may, against one in float32."""
    import torch

    torch.set_num_threads(1)  # threads of the parent are none of the child's
    left, right = (torch.linspace(-1, 1, 64 * 64).view(64, 64).roll(shift, 0) for shift in (0, 7))
    made = left.bfloat16() @ right.bfloat16()
    return torch.allclose(made.float(), left.bfloat16().float() @ right.bfloat16().float(), atol=0.1, rtol=0.02)
