"""What it costs to fetch one large file and many small ones: of a bucket against `aws s3 cp`, of a hub against `hf`.

Servers on loopback: versitygw with TLS, and the tests' hub. Each in a process of its own, in turn, twice, onto the same
disk. CPU seconds are of the client and its children. Ours also hashes, flushes to the disk, and compares.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llm_trainer.config.remote import FETCH_ENVIRONMENT
from tests.storage import hub_server, s3_server

ROUNDS = 2
SMALL_BYTES = 100_000
REPOSITORY = "team/corpus"


@dataclass(frozen=True)
class Client:
    """One way to fetch: its command, given an empty folder, and what goes to its standard input."""

    name: str
    command: Callable[[Path], list[str]]
    request: Callable[[Path], str] = lambda _: ""
    environment: dict[str, str] | None = None


@dataclass(frozen=True)
class Figures:
    seconds: float
    cpu: float
    peak: float  # MiB of memory


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench fetch", description=__doc__)
    parser.add_argument("--aws", help="the program of awscli; it is no part of the environment")
    parser.add_argument("--large", type=float, default=2e9, help="bytes of the one file")
    parser.add_argument("--small", type=int, default=2000, help=f"files of {SMALL_BYTES:,} bytes")
    parser.add_argument("--folder", help="on the disk to be measured; a temporary one by default")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-fetch-", dir=options.folder) as name:
        folder = Path(name)
        print("| what | client | wall, s | CPU, s | peak memory, MiB |\n|---|---|---|---|---|")
        if options.aws:
            from_a_bucket(folder, options.aws, int(options.large), options.small)
        from_a_hub(folder, int(options.large), options.small)


def from_a_bucket(folder: Path, aws: str, large: int, small: int) -> None:
    with s3_server.serving(folder / "s3") as values:
        data = folder / "s3" / "data" / s3_server.BUCKET
        for path, content in files(large, small):
            (data / path).parent.mkdir(parents=True, exist_ok=True)
            (data / path).write_bytes(content)
        (folder / "secret").mkdir()
        for key, value in values.items():
            (folder / "secret" / key).write_text(value)
        authority = folder / "s3" / "pki" / "ca.crt"
        environment = {key: value for key, value in values.items() if key.startswith("AWS_")}
        given = [{"secretName": "store", "target": f"s3://{s3_server.BUCKET}", "folder": str(folder / "secret")}]
        for what in ("large", "small"):
            uri = f"s3://{s3_server.BUCKET}/{what}"
            copied = [aws, "s3", "cp", "--recursive", "--quiet", "--ca-bundle", str(authority), uri]
            ours = Client("ours", ours_command, partial(request, uri, given))
            compared(what, folder, (ours, Client("aws s3 cp", partial(into, copied), environment=environment)))
    shutil.rmtree(folder / "s3")


def from_a_hub(folder: Path, large: int, small: int) -> None:
    """The server is a process of its own, so that its CPU is not the client's."""
    command = [sys.executable, "-m", "tests.bench.fetch", str(large), str(small)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as server:
        assert server.stdout
        environment = {**FETCH_ENVIRONMENT, "HF_ENDPOINT": server.stdout.readline().strip(), "HF_HUB_DISABLE_XET": "1"}
        for what in ("large", "small"):
            uri, hf = f"hf://datasets/{REPOSITORY}/{what}", str(Path(sys.executable).with_name("hf"))
            downloaded = [hf, "download", "--repo-type=dataset", REPOSITORY, f"--include={what}/*", "--local-dir"]
            ours = Client("ours", ours_command, partial(request, uri, []), environment)
            compared(what, folder, (ours, Client("hf download", partial(into, downloaded), environment=environment)))
        server.terminate()


def files(large: int, small: int) -> Iterator[tuple[str, bytes]]:
    block = random.Random(0).randbytes(1 << 20)
    yield "large/model.bin", block * (large >> 20)
    for number in range(small):
        yield f"small/{number:05}.jsonl", number.to_bytes(4, "big") + block[: SMALL_BYTES - 4]


def ours_command(_: Path) -> list[str]:
    return [sys.executable, "-m", "llm_trainer.storage"]


def into(command: list[str], folder: Path) -> list[str]:
    return [*command, str(folder)]


def request(uri: str, credentials: list[dict[str, str]], cache: Path) -> str:
    inputs = [{"field": "bench", "uri": uri, "use": "data"}]
    return json.dumps(
        {"claim": "models", "cache": str(cache), "writer": "bench", "inputs": inputs, "credentials": credentials}
    )


def compared(what: str, folder: Path, clients: tuple[Client, ...]) -> None:
    for _ in range(ROUNDS):
        for client in clients:
            at = folder / "fetched"
            at.mkdir()
            found = measured(client, at)
            shutil.rmtree(at)
            print(f"| {what} | {client.name} | {found.seconds:.1f} | {found.cpu:.1f} | {found.peak:.0f} |", flush=True)


def measured(client: Client, at: Path) -> Figures:
    """By a process of its own, whose only child the client is: getrusage sums over all children."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        began = time.monotonic()
        environment = {**os.environ, **(client.environment or {})}
        done = subprocess.run(
            client.command(at), input=client.request(at), text=True, env=environment, check=False, capture_output=True
        )
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
        said = [time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, done.returncode]
        os.write(writer, json.dumps(said).encode())
        os._exit(0)
    os.waitpid(child, 0)
    seconds, cpu, peak, code = json.loads(os.read(reader, 4096))
    os.close(reader)
    os.close(writer)
    if code:
        sys.exit(f"{client.name} failed")
    return Figures(seconds, cpu, peak)


@dataclass
class Settled(hub_server.Repository):
    """One that doesn't change: its commit is not worked out at each request."""

    known: str = ""

    @property
    def commit(self) -> str:
        return self.known


def serve_hub(large: int, small: int) -> None:
    """Until it is ended; its address is its first line."""
    with hub_server.serving() as hub:
        made = hub_server.Repository(dict(files(large, small)), kind="datasets")
        commit = made.commit
        hub.repositories[REPOSITORY] = Settled(made.files, kind=made.kind, known=commit)
        print(hub.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    serve_hub(*map(int, sys.argv[1:3]))
