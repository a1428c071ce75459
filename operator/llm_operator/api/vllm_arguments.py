"""Arguments of `vllm serve` that a user can't give, because a field says the same or the pod needs them as they are.

Read as vLLM 0.31 reads them (utils/argparse_utils.py there): --flag=value and --flag value, '_' for '-', a key of a
JSON value behind a '.', --no-flag, and what argparse adds: abbreviations, and -n2 for -n 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

ADDRESS = "is fixed, because the Service and the probes ask there; remove it"
TLS = "would break the probes, which speak HTTP; end TLS in a Gateway, an Ingress or a mesh before the Service"
ONE_POD = "spreads an engine over several pods, and here each pod is one; remove it"
NO_SERVER = "leaves the pod without the HTTP server that the Service and the probes ask; remove it"
ENDS = "ends vLLM at once; remove it"

# Why it is refused and what to do, by the flag.
RESERVED = {
    "--host": ADDRESS,
    "--port": ADDRESS,
    "--uds": ADDRESS,
    "--model": "is given by spec.model; set it there",
    "--served-model-name": "is given by spec.servedModelName; set it and spec.servedModelAliases",
    "--max-model-len": "is given by spec.maxModelLength; set it",
    "--dtype": "is given by spec.dataType; set it",
    "--enable-lora": "is given with spec.adapters; list the adapters there",
    "--lora-modules": "would take the place of spec.adapters; list all there",
    "--max-lora-rank": "follows from spec.adapters; set their rank",
    "--shutdown-timeout": "is given by spec.drainTimeoutSeconds; set it",
    "--api-key": "would stand readable in the spec; put it into a Secret and name that in spec.apiKey",
    "--config": "reads a file that could set any of what is refused here; give its lines as arguments",
    "--ssl-keyfile": TLS,
    "--ssl-certfile": TLS,
    "--ssl-ca-certs": TLS,
    "--ssl-cert-reqs": TLS,
    "--ssl-ciphers": TLS,
    "--enable-ssl-refresh": TLS,
    "--headless": NO_SERVER,
    "--grpc": NO_SERVER,
    "--nnodes": ONE_POD,
    "--node-rank": ONE_POD,
    "--master-addr": ONE_POD,
    "--master-port": ONE_POD,
    "--data-parallel-rank": ONE_POD,
    "--data-parallel-start-rank": ONE_POD,
    "--data-parallel-address": ONE_POD,
    "--data-parallel-hybrid-lb": ONE_POD,
    "--data-parallel-external-lb": ONE_POD,
    "--data-parallel-multi-port-external-lb": ONE_POD,
    "--help": ENDS,
}
SHORT = {
    "-n": "--nnodes",
    "-r": "--node-rank",
    "-dpn": "--data-parallel-rank",
    "-dpr": "--data-parallel-start-rank",
    "-dpa": "--data-parallel-address",
    "-dph": "--data-parallel-hybrid-lb",
    "-dpe": "--data-parallel-external-lb",
    "-dpm": "--data-parallel-multi-port-external-lb",
    "-asc": "--api-server-count",
    "-h": "--help",
}
SHORTEST_ABBREVIATION = len("--h")


class Given(NamedTuple):
    """One argument: as it was written, the flag that vLLM takes it for, and its value if it has one."""

    written: str
    flag: str
    value: str | None


def given(arguments: Sequence[str]) -> Iterator[Given]:
    """The flags among arguments, in order."""
    for index, argument in enumerate(arguments):
        if not argument.startswith("-") or argument[1:2].isdecimal():
            continue
        written, equals, value = argument.partition("=")
        follows = arguments[index + 1] if index + 1 < len(arguments) else None
        if written in SHORT or written.startswith("--"):
            yield Given(written, flag_of(written), value if equals else follows)
        elif written[:2] in SHORT:
            yield Given(written, SHORT[written[:2]], written[2:])
        else:
            yield Given(written, written, value if equals else follows)


def flag_of(written: str) -> str:
    if written in SHORT:
        return SHORT[written]
    flag = written.partition(".")[0].replace("_", "-")
    positive = f"--{flag.removeprefix('--no-')}" if flag.startswith("--no-") else flag
    if positive in RESERVED or len(positive) < SHORTEST_ABBREVIATION:
        return positive
    whole = [reserved for reserved in RESERVED if reserved.startswith(positive)]
    return whole[0] if whole else positive


def argument_problems(arguments: Sequence[str], path: str, *, chat_template: bool) -> Iterator[str]:
    """``chat_template``: whether the spec has one."""
    if arguments and not arguments[0].startswith("-"):
        yield f"{path}[0]: {arguments[0]!r} would be the model; write flags, and the model in spec.model"
    if "--" in arguments:
        yield f"{path}: '--' ends the flags; remove it"
    for written, flag, value in given(arguments):
        if why := RESERVED.get(flag):
            yield f"{path}: {written if written == flag else f'{written} ({flag})'} {why}"
        elif flag == "--chat-template" and chat_template:
            yield f"{path}: {written} stands beside spec.chatTemplate; remove one"
        elif flag == "--api-server-count" and value == "0":
            yield f"{path}: {written} 0 {NO_SERVER}"
