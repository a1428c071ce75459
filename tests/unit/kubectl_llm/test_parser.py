"""Command lines as people type them."""

from __future__ import annotations

import pytest

from kubectl_llm.__main__ import parser


@pytest.mark.parametrize(
    "line",
    [
        ["chat", "base", "--model", "legal", "What", "now?"],
        ["chat", "base", "What", "now?", "--model", "legal"],
        ["chat", "--model", "legal", "base", "What", "now?"],
        ["chat", "base", "What", "--model", "legal", "now?"],
    ],
)
def test_options_may_stand_anywhere(line: list[str]) -> None:
    asked = parser().parse_args(line)
    assert (asked.name, asked.model, asked.message) == ("base", "legal", ["What", "now?"])


def test_names_after_an_option() -> None:
    assert parser().parse_args(["progress", "a", "--watch", "b"]).names == ["a", "b"]


@pytest.mark.parametrize(
    "line", [["chat", "base", "--modle", "x"], ["suspend", "a", "b"], ["progress", "a", "-x", "b"]]
)
def test_what_nobody_takes_is_refused(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(line)
    assert "unrecognized arguments" in capsys.readouterr().err
