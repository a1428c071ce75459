"""How vLLM 0.31 reads its arguments (utils/argparse_utils.py there). Pure, of the standard library alone.

--flag=value and --flag value, '_' for '-', a key of a JSON value behind a '.', --no-flag, and what argparse adds:
abbreviations, and -n2 for -n 2.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

TENSOR = "--tensor-parallel-size"
OTHER_SIZES = ("--pipeline-parallel-size", "--data-parallel-size", "--prefill-context-parallel-size")
# Those of which anything here or in the operator depends; only they are found by an abbreviation.
FLAGS = (
    "--host", "--port", "--uds", "--model", "--served-model-name", "--max-model-len", "--dtype", "--enable-lora",
    "--lora-modules", "--max-loras", "--max-lora-rank", "--shutdown-timeout", "--api-key", "--config",
    "--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-cert-reqs", "--ssl-ciphers", "--enable-ssl-refresh",
    "--headless", "--grpc", "--nnodes", "--node-rank", "--master-addr", "--master-port", "--data-parallel-rank",
    "--data-parallel-start-rank", "--data-parallel-address", "--data-parallel-hybrid-lb", "--data-parallel-external-lb",
    "--data-parallel-multi-port-external-lb", "--help", "--chat-template", "--api-server-count", "--hf-overrides",
    "--hf-config-path", "--load-format", "--kv-cache-memory-bytes", "--gpu-memory-utilization",
    "--generation-config", "--runner", "--convert", "--trust-remote-code", TENSOR, *OTHER_SIZES,
)  # fmt: skip
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
    "-tp": TENSOR,
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-pcp": "--prefill-context-parallel-size",
}
SHORTEST_ABBREVIATION = len("--h")


class Given(NamedTuple):
    """One argument: as it was written, the flag that vLLM takes it for, and what follows it up to the next flag."""

    written: str
    flag: str
    values: tuple[str, ...]


def given(arguments: Sequence[str]) -> Iterator[Given]:
    """The flags among arguments, in order."""
    for index, argument in enumerate(arguments):
        if not is_flag(argument):
            continue
        written, equals, value = argument.partition("=")
        values = (value,) if equals else tuple(until_a_flag(arguments[index + 1 :]))
        flag = flag_of(written)
        if flag == written and not written.startswith("--") and written[:2] in SHORT:  # -n2
            yield Given(written, SHORT[written[:2]], (written[2:],))
        else:
            yield Given(written, flag, values)


def is_flag(argument: str) -> bool:
    """A negative number is a value."""
    return argument.startswith("-") and not argument[1:2].isdecimal()


def until_a_flag(arguments: Sequence[str]) -> Iterator[str]:
    for argument in arguments:
        if is_flag(argument):
            return
        yield argument


def flag_of(written: str) -> str:
    """The long flag; what is none of ours as it was written."""
    if not written.startswith("--"):
        whole = written if written in SHORT else next((short for short in SHORT if short.startswith(written)), written)
        return SHORT.get(whole, written)
    flag = written.partition(".")[0].replace("_", "-")
    positive = f"--{flag.removeprefix('--no-')}" if flag.startswith("--no-") else flag
    if positive in FLAGS or len(positive) < SHORTEST_ABBREVIATION:
        return positive
    return next((known for known in FLAGS if known.startswith(positive)), positive)


def values_of(arguments: Sequence[str], flag: str) -> tuple[str, ...] | None:
    """What follows the last of a flag; None if it is not there."""
    return next((found.values for found in reversed([*given(arguments)]) if found.flag == flag), None)


def first_of(arguments: Sequence[str], flag: str) -> str | None:
    """The first value of the last of a flag."""
    found = values_of(arguments, flag)
    return found[0] if found else None


def number_of(arguments: Sequence[str], flag: str) -> int | None:
    """A flag's whole number; None where it is not there or has none, which vLLM tells."""
    return whole_number(first_of(arguments, flag) or "")


def whole_number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def without(arguments: Sequence[str], flags: Collection[str]) -> list[str]:
    """All but some flags with what follows them."""
    kept: list[str] = []
    dropping = False
    for argument in arguments:
        if is_flag(argument):
            dropping = flag_of(argument.partition("=")[0]) in flags
        if not dropping:
            kept.append(argument)
    return kept
