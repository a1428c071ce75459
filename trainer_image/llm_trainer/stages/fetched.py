"""Remote URIs become folders of the storage's claim: data preparation fetches them, every stage reads them there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import IO, Any

from llm_trainer.checkpoint.fence import Fence
from llm_trainer.checkpoint.files import write_durably
from llm_trainer.config import CACHE, FineTuning, PrepareData, StageConfig, claim_of, is_remote, settings_of
from llm_trainer.config.remote import FETCH_ENVIRONMENT, replaced, shown
from llm_trainer.protocol import FetchedInput
from llm_trainer.runtime.errors import ConfigurationError, PreemptedError, StageError, error_of
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.signals import StopSignal
from llm_trainer.stages.differences import input_uris
from llm_trainer.storage.request import INPUTS, InputFetched, Many, Request, fetched_input, read_inputs
from llm_trainer.storage.speed import Speed

LEAVE_SECONDS = 10.0
WAIT_SECONDS = 2.0


def located(config: StageConfig) -> StageConfig:
    """The configuration with the places of what was fetched. Raises ConfigurationError for what was not."""
    inputs = read_inputs(Path(config.run_folder))
    if not inputs:
        return refuse_unknown(config)
    places = {each.uri: each.place for each in inputs}
    text = replaced(config.model_dump_json(by_alias=True, exclude_unset=True), places)
    return refuse_unknown(StageConfig.model_validate_json(text))


def refuse_unknown(config: StageConfig) -> StageConfig:
    """A dataset or model that a later stage was given after the data was prepared."""
    named = {**input_uris(config), **dataset_uris(config)}
    for field, uri in named.items():
        if is_remote(uri):
            raise ConfigurationError(
                f"{field}: {shown(uri)} was not fetched, because it was named after the data had been prepared; make a "
                "new LLMTraining with spec.resumeFrom: it fetches it, and takes up what is finished"
            )
    return config


def dataset_uris(config: StageConfig) -> dict[str, str]:
    settings = settings_of(config)
    return {"dataset.uri": settings.dataset.uri} if isinstance(settings, FineTuning) else {}


def fetch_inputs(config: StageConfig, board: Board, rank: int) -> StageConfig:
    """Have what data preparation's configuration names on the claim; the configuration with its places.

    Rank 0 fetches, the others wait for it. Raises DataError, naming the field, StorageError where a server fails for
    long, and PreemptedError.
    """
    settings = config.prepare_data
    if settings is None or not settings.remote:
        return config
    if rank != 0:
        await_inputs(config, settings, board)
        return located(config)
    claim = claim_of(config.run_uri) or ""
    request = Request(
        claim=claim,
        cache=f"{config.volumes_root}/{claim}/{CACHE}",
        writer=config.uid,
        inputs=settings.remote,
        credentials=settings.credentials,
        before=read_inputs(Path(config.run_folder)),
    )
    inputs = Many.validate_python(ask(request, board))
    Fence(config).check()
    write_durably(Path(config.run_folder) / INPUTS, Many.dump_json(inputs, indent=1).decode() + "\n")
    for each in inputs:
        what, size = "listed" if each.streamed else "fetched", f"{each.files} files, {each.bytes:,} bytes"
        print(f"{what} {shown(each.uri)}: {size}, revision {each.revision}", flush=True)
    board.update(inputs=told(inputs), eta_seconds=None)
    return located(config)


def await_inputs(config: StageConfig, settings: PrepareData, board: Board) -> None:
    """Until rank 0 has fetched, which ends the attempt if it can't; it may die without a word, too."""
    stop = StopSignal()
    stop.listen()
    wanted = {(each.uri, each.use) for each in settings.remote}
    while not wanted <= {(each.uri, each.use) for each in read_inputs(Path(config.run_folder))}:
        if stop.asked:
            raise PreemptedError("asked to leave while rank 0 fetches")
        Fence(config).check()
        board.update(phase="Fetching")
        time.sleep(WAIT_SECONDS)


def ask(request: Request, board: Board) -> list[Any]:
    """What the process that fetches has done. Raises what it tells, and PreemptedError when the pod is to leave."""
    stop = StopSignal()
    stop.listen()
    command = [sys.executable, "-m", "llm_trainer.storage"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdin  # noqa: S101 -- both are pipes
        assert process.stdout  # noqa: S101
        process.stdin.write(request.model_dump_json())
        process.stdin.close()
        speed = Speed()
        try:
            for line in lines(process.stdout, board, stop):
                if "error" in line:
                    raise error_of(line["error"]["reason"], line["error"]["message"])
                if "fetched" in line:
                    found: list[Any] = line["fetched"]
                    return found
                board.update(phase="Fetching", **speed.figures(line["bytes"], line["total"]))
        finally:
            process.terminate()
            try:
                process.wait(LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
    raise StageError(f"the process that fetches ended with {process.returncode} before it could say why; see the log")


def lines(stream: IO[str], board: Board, stop: StopSignal) -> Iterator[dict[str, Any]]:
    """What it says, a line at a time; it is alive while it waits for a server, too."""
    said: Queue[str] = Queue()

    def listen() -> None:
        for line in stream:
            said.put(line)
        said.put("")

    Thread(target=listen, name="fetch", daemon=True).start()
    while True:
        if stop.asked:
            raise PreemptedError("asked to leave while fetching; the next attempt goes on where it was")
        board.update()
        try:
            line = said.get(timeout=1.0)
        except Empty:
            continue
        if not line:
            return
        yield json.loads(line)


def environment() -> dict[str, str]:
    """The pod's, with what a process that fetches needs."""
    return {**os.environ, **FETCH_ENVIRONMENT}


def told(inputs: list[InputFetched]) -> list[FetchedInput]:
    """Each once, for the status."""
    once = {each.uri: each for each in inputs}.values()
    return [fetched_input(each.uri, each.revision, each.bytes, each.license) for each in once]
