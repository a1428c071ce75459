"""A stranger that races a rank: what it is told and does, and that the training goes on."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_trainer.runtime import gate
from llm_trainer.runtime.gate import MAC_BYTES, NUMBER_BYTES, sign, token_of
from tests.trainer.conftest import RunPods, Stage
from tests.trainer.pods import ROOT, free_port

TOKEN = b"t" * 32
SECONDS = 30
# A pod without a training: the first one's store is an echo, and each tells where its processes would find the store.
POD = """
import json, sys, threading
from llm_trainer.runtime.gate import open_meeting
rank, port, token = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
meeting = open_meeting(rank, 2, "127.0.0.1", port, token)
def echo(there):
    while said := there.recv(100):
        there.sendall(said)
def store():
    while True:
        threading.Thread(target=echo, args=(meeting.listener.accept()[0],), daemon=True).start()
if meeting.first:
    threading.Thread(target=store, daemon=True).start()
print(json.dumps(meeting.environment()), flush=True)
sys.stdin.read()
meeting.end()
"""
STRANGER = """
import sys, datetime
import torch.distributed as dist
dist.init_process_group(
    "gloo", init_method=f"tcp://127.0.0.1:{sys.argv[1]}", rank=1, world_size=2, timeout=datetime.timedelta(seconds=60)
)
"""


@contextmanager
def pod(rank: int, port: int, token: bytes = TOKEN) -> Iterator[tuple[str, int]]:
    """Where its processes find the store."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "trainer_image")}
    started = subprocess.Popen(
        [sys.executable, "-c", POD, str(rank), str(port), token.hex()], env=environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert started.stdout
        told = json.loads(started.stdout.readline())
        yield told["LLM_STORE_HOST"], int(told["LLM_STORE_PORT"])
    finally:
        started.communicate("", timeout=SECONDS)


def says(place: tuple[str, int], text: bytes = b"hello") -> bytes:
    with socket.create_connection(place, SECONDS) as there:
        there.sendall(text)
        return there.recv(100)


def test_pods_of_an_attempt_reach_the_store() -> None:
    port = free_port()
    with pod(1, port) as second, socket.create_connection(second, SECONDS) as early:  # and waits for the first
        early.sendall(b"early")
        with pod(0, port) as first:
            assert says(first) == says(second) == b"hello"
            assert early.recv(100) == b"early"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n".ljust(NUMBER_BYTES + MAC_BYTES),
        bytes(NUMBER_BYTES + MAC_BYTES),
        bytes(NUMBER_BYTES) + sign(b"another token", b"joins", bytes(NUMBER_BYTES), bytes(NUMBER_BYTES)),
    ],
    ids=["silence", "HTTP", "zeros", "another token"],
)
def test_a_stranger_reaches_nothing(answer: bytes) -> None:
    port = free_port()
    with pod(0, port), pod(1, port) as second, socket.create_connection(("127.0.0.1", port), SECONDS) as stranger:
        assert len(stranger.recv(100)) == NUMBER_BYTES
        stranger.sendall(answer)
        assert says(second) == b"hello", "a stranger keeps nobody out"
        if answer:
            assert stranger.recv(100) == b""


def test_what_a_rank_has_shown_is_of_no_use_to_another() -> None:
    """Who listens to one handshake can't repeat it: each has new numbers."""
    port = free_port()
    with pod(0, port), socket.create_connection(("127.0.0.1", port), SECONDS) as one:
        number = one.recv(100)
        shown = bytes(NUMBER_BYTES) + sign(TOKEN, b"joins", number, bytes(NUMBER_BYTES))
        one.sendall(shown)
        assert one.recv(100) == sign(TOKEN, b"admits", number, bytes(NUMBER_BYTES))
        with socket.create_connection(("127.0.0.1", port), SECONDS) as other:
            assert other.recv(100) != number
            other.sendall(shown)
            assert other.recv(100) == b""


@pytest.mark.parametrize("first_word", [b"", b"x"], ids=["silent", "slow"])
def test_a_flood_keeps_no_rank_out(first_word: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of connections that show nothing the oldest goes, and no rank is refused because of them."""
    monkeypatch.setattr(gate, "STRANGERS", 8)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        await writer.drain()

    async def flood() -> None:
        store = await asyncio.start_server(echo, "127.0.0.1", 0)
        at = store.sockets[0].getsockname()[:2]
        guard = await asyncio.start_server(gate.admit_to(str(at[0]), int(at[1]), TOKEN), "127.0.0.1", 0)
        place = guard.sockets[0].getsockname()[:2]
        strangers = []
        for _ in range(30):
            strangers.append(await asyncio.open_connection(*place))
            strangers[-1][1].write(first_word)
            await strangers[-1][0].readexactly(NUMBER_BYTES)
        rank = await asyncio.open_connection(*place)
        await gate.show_token(rank, TOKEN)
        rank[1].write(b"hello")
        assert await rank[0].readexactly(5) == b"hello"
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await strangers[0][0].readexactly(1)
        assert not strangers[-1][0].at_eof(), "and those that came last may still be ranks"
        for _, writer in (*strangers, rank):
            writer.close()
        store.close()
        guard.close()

    asyncio.run(asyncio.wait_for(flood(), SECONDS))


def test_a_gate_that_fails_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    """Its end alone would look as if the network were broken."""
    closed = socket.socket()
    closed.close()
    os.waitpid(gate.fork(closed, gate.admit_to("127.0.0.1", 1, TOKEN)), 0)
    assert "OSError" in capfd.readouterr().err


def test_a_rank_does_not_join_a_stranger_that_stands_for_the_first_pod() -> None:
    with socket.create_server(("127.0.0.1", port := free_port())) as stranger:
        stranger.settimeout(SECONDS)
        with pod(1, port) as second, socket.create_connection(second, SECONDS) as process:
            process.sendall(b"secret")
            for _ in range(2):
                there = stranger.accept()[0]
                there.settimeout(SECONDS)
                there.sendall(bytes(NUMBER_BYTES))
                assert len(there.recv(100)) == NUMBER_BYTES + MAC_BYTES
                there.sendall(bytes(MAC_BYTES))
                assert there.recv(100) == b"", "it leaves, tells nothing, and tries again"


def test_each_attempt_has_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_JOB_UID", "one")
    tokens = {token_of(uid, stage, attempt) for uid in "ab" for stage in "xy" for attempt in (1, 2)}
    monkeypatch.setenv("LLM_JOB_UID", "two")
    assert len(tokens | {token_of("a", "x", 1)}) == 9


def test_a_stranger_that_races_rank_1_is_refused(pretrain: Stage, pods: RunPods, tmp_path: Path) -> None:
    port = free_port()
    with (tmp_path / "stranger").open("wb") as log:
        stranger = subprocess.Popen([sys.executable, "-c", STRANGER, str(port)], stdout=log, stderr=log)
    try:
        running = pods(pretrain("raced", steps=2), warm=False, LLM_RENDEZVOUS_PORT=str(port))
        running.run()
    finally:
        stranger.kill()
        stranger.wait()
    assert "127.0.0.1 was refused: it did not show the token" in running.pods[0].log
