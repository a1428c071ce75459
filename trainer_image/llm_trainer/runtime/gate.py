"""Who may join a training: a pod that shows the token of its attempt.

The processes meet at a store of rank 0 (torch's TCPStore), which obeys whoever reaches it. So it listens on the
loopback alone, and each pod has a gate: the first pod's admits connections of other pods to the store, theirs are the
processes' way to it. Both sides show that they know the token, without telling it: HMAC-SHA256 over two fresh numbers.
A gate is a process of its own: threads of a training process may hold Python's lock while they wait for the store.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import resource
import secrets
import signal
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

NUMBER_BYTES = MAC_BYTES = 32
HANDSHAKE_SECONDS = 10.0
STRANGERS = 4096  # connections that have not shown the token yet: of more the oldest goes, as a rank shows it at once
TOLD = 20  # strangers that the log names
PATIENCE_SECONDS = 1800.0  # for which a pod tries to reach the first one
PAUSE_SECONDS = 0.2
BACKLOG = 4096

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class StrangerError(Exception):
    """Who is at the other end does not know the token."""


@dataclass(frozen=True)
class Meeting:
    """Of one pod. `listener`: a socket on the loopback, of rank 0's store in the first pod, of the gate in others."""

    listener: socket.socket
    first: bool
    gate: int | None  # pid

    def environment(self) -> dict[str, str]:
        """By which the processes of the pod find the store."""
        host, port = self.listener.getsockname()[:2]
        found = {"LLM_STORE_HOST": host, "LLM_STORE_PORT": str(port)}
        return {**found, "LLM_STORE_FD": str(self.listener.fileno())} if self.first else found

    def end(self) -> None:
        if self.gate:
            with suppress(ProcessLookupError):
                os.kill(self.gate, signal.SIGKILL)


def open_meeting(node_rank: int, nodes: int, first_pod: str, port: int, token: bytes) -> Meeting:
    """Before the processes are forked. `first_pod`: a name or an address. Raises OSError for a port that is taken."""
    listener, first = on_loopback(), node_rank == 0
    if nodes == 1:
        return Meeting(listener, first, None)
    host, at = listener.getsockname()[:2]
    if first:
        outer = on_all_addresses(port)
        gate = fork(outer, admit_to(host, at, token))
        outer.close()
    else:
        gate = fork(listener, lead_to(first_pod, port, token))
    return Meeting(listener, first, gate)


def token_of(uid: str, stage: str, attempt: int) -> bytes:
    """Of an attempt: known to who may read its Job or its pods, and to nobody without rights in the namespace."""
    job = os.environ.get("LLM_JOB_UID", "")  # a new one for each attempt, by the downward API
    return hashlib.sha256(f"llm-operator rendezvous {uid} {stage} {attempt} {job}".encode()).digest()


def on_loopback() -> socket.socket:
    """IPv4's, where a pod has it."""
    try:
        return socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    except OSError:
        return socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=BACKLOG)


def on_all_addresses(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    return socket.create_server(("", port), backlog=BACKLOG)


def fork(listener: socket.socket, serve: Serve) -> int:
    """A process that serves each connection, for as long as its parent lives; its pid."""
    parent = os.getpid()
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    try:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        asyncio.run(_serve(listener, serve, parent))
    except BaseException:  # noqa: BLE001 -- a second launcher must not run on in the child
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


async def _serve(listener: socket.socket, serve: Serve, parent: int) -> None:
    server = await asyncio.start_server(serve, sock=listener)
    async with server:
        while os.getppid() == parent:  # noqa: ASYNC110 -- nothing tells of its end
            await asyncio.sleep(1)


def admit_to(host: str, port: int, token: bytes) -> Serve:
    """The first pod's gate: to the store, for who shows the token."""
    strangers: dict[asyncio.StreamWriter, None] = {}  # the oldest first
    told = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal told
        if len(strangers) >= STRANGERS:
            oldest = next(iter(strangers))
            del strangers[oldest]
            oldest.transport.abort()
        strangers[writer] = None
        try:
            await asyncio.wait_for(ask_for_token((reader, writer), token), HANDSHAKE_SECONDS)
        except (StrangerError, EOFError, OSError, TimeoutError) as error:
            if told < TOLD:
                told += 1
                who, why = (writer.get_extra_info("peername") or ["somebody"])[0], str(error) or type(error).__name__
                print(f"{who} was refused: it did not show the token of this attempt ({why})", flush=True)
            writer.close()
            return
        finally:
            strangers.pop(writer, None)
        try:
            there = await asyncio.open_connection(host, port)
        except OSError as error:
            print(f"the store of rank 0 can't be reached: {error}", flush=True)
            writer.close()
            return
        await joined((reader, writer), there)

    return serve


def lead_to(host: str, port: int, token: bytes) -> Serve:
    """The gate of another pod: to the first one's, as soon as that is there."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            if there := await _reached(host, port, token):
                await joined((reader, writer), there)
                return
            await asyncio.sleep(PAUSE_SECONDS)
        writer.close()

    return serve


async def _reached(host: str, port: int, token: bytes) -> Streams | None:
    """None where nobody, or somebody else, answers: an attempt before may just be ending."""
    try:
        there = await asyncio.wait_for(asyncio.open_connection(host, port), HANDSHAKE_SECONDS)
    except (OSError, TimeoutError):
        return None
    try:
        await asyncio.wait_for(show_token(there, token), HANDSHAKE_SECONDS)
    except (StrangerError, EOFError, OSError, TimeoutError):
        there[1].close()
        return None
    return there


async def ask_for_token(streams: Streams, token: bytes) -> None:
    """Raises StrangerError if the other side does not know it."""
    reader, writer = streams
    own = secrets.token_bytes(NUMBER_BYTES)
    writer.write(own)
    told = await reader.readexactly(NUMBER_BYTES + MAC_BYTES)
    other, mac = told[:NUMBER_BYTES], told[NUMBER_BYTES:]
    if not hmac.compare_digest(mac, sign(token, b"joins", own, other)):
        raise StrangerError("another token")
    writer.write(sign(token, b"admits", own, other))
    await writer.drain()


async def show_token(streams: Streams, token: bytes) -> None:
    """Raises StrangerError if the other side does not know it: a training must not join a stranger's store."""
    reader, writer = streams
    other = await reader.readexactly(NUMBER_BYTES)
    own = secrets.token_bytes(NUMBER_BYTES)
    writer.write(own + sign(token, b"joins", other, own))
    if not hmac.compare_digest(await reader.readexactly(MAC_BYTES), sign(token, b"admits", other, own)):
        raise StrangerError("another token")


def sign(token: bytes, role: bytes, *numbers: bytes) -> bytes:
    return hmac.digest(token, role + b"".join(numbers), "sha256")


async def joined(one: Streams, other: Streams) -> None:
    """Until either side ends."""
    flows = [asyncio.create_task(_flow(one[0], other[1])), asyncio.create_task(_flow(other[0], one[1]))]
    await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
    for flow in flows:
        flow.cancel()
    for writer in (one[1], other[1]):
        writer.close()


async def _flow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
