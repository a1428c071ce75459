"""`make gpu-check` runs where there is a GPU, which is seldom: by the same code a CPU shows that it still does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import gpu_check


@pytest.mark.release
def test_it_runs_on_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "rows.md"
    arguments = ["--device", "cpu", "--cases", "tiny", "--stages", "lora-merged", "--output", str(output)]
    code = gpu_check.main(arguments)
    said = capsys.readouterr().out
    assert code == 0, said
    rows = [line for line in output.read_text().splitlines() if line.startswith("| ")]
    assert set(rows) <= set(said.splitlines()), said
    assert any(row.startswith("| tiny, 2 × 64") and "| sdpa |" in row for row in rows), said
    assert any(row.startswith("| lora-merged") and "loss" in row for row in rows), said


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    there = gpu_check.installed
    monkeypatch.setattr(gpu_check, "installed", lambda name: "" if name in ("trl", "vllm") else there(name))
    assert gpu_check.main([]) == 2
    assert capsys.readouterr().out.startswith("missing: trl; carry their wheels in")


def test_without_time_nothing_is_begun(tmp_path: Path) -> None:
    assert not gpu_check.Clock.of(0.5).has_time
