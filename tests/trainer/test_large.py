"""A large model is never whole in a process that ZeRO-3 gives a part of it."""

from __future__ import annotations

import pytest

from tests.trainer.large import Found, measure, two_processes

MIB = 2**20
# dense, tied and not; experts and buffers that are stored apart; layers that make their modules' weights anew
FAMILIES = (
    "llama", "gpt2", "gemma2", "gpt_oss", "qwen3_moe", "deepseek_v3", "jamba", "mamba", "mamba2", "qwen3_next",
    "falcon_h1",
)  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Of 103 million weights, whose largest is a hundredth of them, in shards of a layer."""
    return measure(8, 1024, 1000, tmp_path_factory.mktemp("model"), shard_bytes=60 * MIB)


@pytest.mark.parametrize(("phase", "share"), [("made", 0.8), ("written", 1.1), ("read", 0.7)])
def test_no_process_holds_the_whole(phase: str, share: float, found: Found) -> None:
    """Half of it is the process's own, and while it is written there are a shard and a layer beside.

    As it was, 1.0 when it was made or read, and 2.0 when it was written: whole on rank 0, and read back.
    """
    assert found.size > 390 * MIB
    assert found.peaks[phase] < share * found.size, f"{found.peaks[phase] / MIB:.0f} MiB"


@pytest.mark.release  # that no family is made whole is shown below
def test_layers_that_make_their_modules_weights_anew() -> None:
    """Of mamba a layer is made at a time; it was 1.0 when the model was made whole, and spread then."""
    told = two_processes("tests.trainer.large", "12", "1024", "1000", "")
    assert told[0]["size"] > 300 * MIB
    for process in told:
        assert process["peaks"]["made"] < 0.8 * process["size"], f"{process['peaks']['made'] / MIB:.0f} MiB"


def test_what_was_written_is_read(found: Found) -> None:
    assert found.same


@pytest.fixture(scope="module")
def differing(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, list[str]]]]:
    told: list[dict[str, dict[str, list[str]]]] = two_processes(
        "tests.trainer.spread", str(tmp_path_factory.mktemp("models")), *FAMILIES
    )
    return told


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spread_model_is_the_whole_one(family: str, differing: list[dict[str, dict[str, list[str]]]]) -> None:
    """To the last bit: made from scratch, read from shards, and with an adapter merged as it is read."""
    for process in differing:
        assert not any(process[family].values()), process[family]
