"""How the launcher and the operator read arguments: by one parser, as vLLM does."""

from __future__ import annotations

import pytest

from llm_operator.api.vllm_arguments import RESERVED
from llm_server.arguments import FLAGS, SHORT, first_of, number_of, values_of, without


def test_what_is_asked_for_is_known() -> None:
    """A flag that the parser doesn't know is not found by an abbreviation."""
    assert set(RESERVED) <= set(FLAGS)
    assert set(SHORT.values()) <= set(FLAGS)


def test_values_of_a_flag() -> None:
    given = ["/m", "-tp", "2", "--dtype=half", "--served-model-name", "a", "b", "--grpc", "--seed", "-1"]
    assert values_of(given, "--served-model-name") == ("a", "b")
    assert (values_of(given, "--grpc"), values_of(given, "--host")) == ((), None)
    assert (first_of(given, "--tensor-parallel-size"), first_of(given, "--grpc")) == ("2", None)
    assert first_of(given, "--seed") == "-1", "a negative number is a value"
    assert first_of([*given, "--dtype", "float"], "--dtype") == "float", "the last counts"


@pytest.mark.parametrize("written", ["--tensor-parallel-size", "--tensor_parallel_size", "--tensor-par", "-tp", "-t"])
@pytest.mark.parametrize("joined", [True, False])
def test_every_form_of_a_number(written: str, joined: bool) -> None:
    arguments = ["/m", f"{written}=04"] if joined else ["/m", written, "04"]
    assert number_of(arguments, "--tensor-parallel-size") == 4


@pytest.mark.parametrize("arguments", [[], ["-tp"], ["-tp=x"], ["--tensor-parallel-size", "--seed=1"]])
def test_no_number(arguments: list[str]) -> None:
    assert number_of(arguments, "--tensor-parallel-size") is None


def test_without_some() -> None:
    given = ["/m", "--max_loras=2", "--lora-mod", "{}", "{}", "--max-num-seqs", "4", "--enable-lora", "-tp", "2"]
    assert without(given, ("--max-loras", "--lora-modules", "--enable-lora")) == [
        "/m", "--max-num-seqs", "4", "-tp", "2",
    ]  # fmt: skip
