"""Pods of a cluster that has IPv6 alone, of one that has both, and of one without IPv6: by network namespaces."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from tests.trainer.pods import ROOT

ONLY_IPV6 = "ip address delete 127.0.0.1/8 dev lo; ip address add fd00:5::1/128 dev lo nodad"
ONLY_IPV4 = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6"
HOSTS = "::1 localhost\nfd00:5::1 chat-0.chat chat-0\n"  # what the kubelet writes, and DNS tells, of a first pod
PROCESS = """
import asyncio, os
import aiohttp
from llm_operator.kube.pull import ask
from llm_trainer.runtime.gate import open_meeting
from llm_trainer.runtime.process_group import ProcessGroup
from llm_trainer.runtime.progress import Board

async def asked():
    async with aiohttp.ClientSession() as session:
        return await ask(session, "fd00:5::1")

meeting = open_meeting(int(os.environ["RANK"]), 2, os.environ["MASTER_ADDR"], 29500, b"token")
os.environ.update(meeting.environment())
group = ProcessGroup.from_environment("cpu")
if group.is_first:
    Board("chat", 3).serve()
group.join()
print(f"sum {group.sum(1.0 + group.rank)}\\n", end="", flush=True)  # whole, however the two processes take turns
if not group.is_first:
    progress = asyncio.run(asked())
    print(f"told {progress.stage} {progress.attempt}\\n", end="", flush=True)
group.leave()
meeting.end()
"""


def in_namespace(network: str, command: str, **environment: str) -> str:
    """What a shell says in a network, and with an /etc/hosts, of its own."""
    script = f"""
        set -eu
        printf '{HOSTS}' >"$TMPDIR/hosts"
        mount --bind "$TMPDIR/hosts" /etc/hosts
        hostname chat-0
        ip link set lo up
        {network}
        {command}
        """
    rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    ours = {"PYTHONPATH": f"{ROOT}/operator:{ROOT}/trainer_image", "PYTHON": sys.executable}
    done = subprocess.run(
        ["unshare", *rights, "--net", "--mount", "--uts", "sh", "-c", textwrap.dedent(script)],
        env={**os.environ, **ours, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("address", ["chat-0.chat", "fd00:5::1"])
def test_processes_meet_and_rank_0_is_asked_where_there_is_no_ipv4(address: str, tmp_path: object) -> None:
    said = in_namespace(
        ONLY_IPV6,
        'RANK=1 "$PYTHON" -c "$PROCESS" & RANK=0 "$PYTHON" -c "$PROCESS"; wait $!',
        PROCESS=PROCESS, TMPDIR=str(tmp_path), MASTER_ADDR=address, MASTER_PORT="29500", WORLD_SIZE="2",
        LOCAL_RANK="0", DS_ACCELERATOR="cpu",
    )  # fmt: skip
    assert said.count("sum [3.0]") == 2, said
    assert "told chat 3" in said


ASK = """
import sys, urllib.request
from llm_trainer.runtime.progress import Board
Board("chat", 3).serve()
for address in sys.argv[1:]:
    print(urllib.request.urlopen(f"http://{address}:9400/healthz", timeout=60).read().decode())
"""


@pytest.mark.parametrize(
    ("network", "addresses"),
    [("", "127.0.0.1 [::1]"), (ONLY_IPV4, "127.0.0.1"), (ONLY_IPV6, "[::1] [fd00:5::1]")],
    ids=["both", "IPv4", "IPv6"],
)
def test_progress_is_told_on_every_address_there_is(network: str, addresses: str, tmp_path: object) -> None:
    said = in_namespace(network, f'"$PYTHON" -c "$ASK" {addresses}', ASK=ASK, TMPDIR=str(tmp_path))
    assert said.split() == ["ok"] * len(addresses.split())


def test_progress_is_told_where_the_kernel_has_no_ipv6(tmp_path: object) -> None:
    without = "import socket; socket.has_dualstack_ipv6 = lambda: False\n"  # what it is with ipv6.disable=1 at boot
    said = in_namespace(ONLY_IPV4, '"$PYTHON" -c "$ASK" 127.0.0.1', ASK=without + ASK, TMPDIR=str(tmp_path))
    assert said.split() == ["ok"]
