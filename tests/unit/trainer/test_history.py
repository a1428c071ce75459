"""What a diverging training writes is JSON all the same, for every reader, and arrives as the number that it was."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.checkpoint.record import StageRecord
from llm_trainer.protocol import Progress, Termination
from llm_trainer.runtime.history import History, dump_json

NUMBERS = [math.nan, math.inf, -math.inf]


def strictly(text: str) -> Any:
    """As every other language's parser reads it."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON: {text}"))


def test_the_history(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl", 1)
    history.append(1, loss=math.nan, gradNorm=math.inf, figures={"kl": -math.inf, "reward": 1.5})
    history.append(2, evaluation={"loss": math.nan})
    history.cut_after(2)
    first, second = map(strictly, history.file.read_text().splitlines())
    assert (first["loss"], first["gradNorm"]) == ("NaN", "Infinity")
    assert first["figures"] == {"kl": "-Infinity", "reward": 1.5}
    assert second["evaluation"] == {"loss": "NaN"}


def test_a_history_of_before_is_mended_when_it_is_cut(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl", 2)
    history.file.write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": 1.0}\n')
    history.cut_after(1)
    assert strictly(history.file.read_text()) == {"step": 1, "loss": "NaN"}


@pytest.mark.parametrize("number", NUMBERS)
def test_what_a_pod_says(number: float) -> None:
    """At /progress, in its last word, and in the record of its stage."""
    told = Progress(stage="base", attempt=1, loss=number, learning_rate=1e-3, evaluation={"loss": number})
    for message in (told, Termination(reason="Succeeded", progress=told), StageRecord(config={}, end=told)):
        text = message.model_dump_json(by_alias=True)
        strictly(text)
        assert repr(type(message).model_validate_json(text)) == repr(message)


@pytest.mark.parametrize("number", NUMBERS)
def test_dump_json(number: float) -> None:
    value = {"a": [number, 1, {"b": number}], "c": "NaN", "d": None, "e": True}
    assert float(strictly(dump_json(value))["a"][2]["b"]) == pytest.approx(number, nan_ok=True)
