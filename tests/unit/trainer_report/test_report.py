"""What the run report tells of a run folder, whatever the folder holds."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_trainer.checkpoint.record import StageRecord
from llm_trainer.report.blocks import to_html, to_markdown
from llm_trainer.report.curves import POINTS, Curve
from llm_trainer.report.page import blocks, title
from llm_trainer.report.records import RunRecords, StageRun, read_run, see
from llm_trainer.report.times import LOST, WAITING, times
from llm_trainer.report.write import write_report
from tests.unit.trainer_report.runs import BEGAN, DIGEST, a_run, config, leave, steps

VOID = {"meta"}


class Balanced(HTMLParser):
    """Fails for a tag that isn't closed where it must be, for scripts, and for anything from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe"), self.get_starttag_text()
        assert not {name for name, _ in attrs} & {"src", "href", "onload", "onerror"}, self.get_starttag_text()
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def written(folder: Path, problem: str = "") -> tuple[str, str]:
    write_report(folder, problem)
    return (folder / "report.html").read_text(), (folder / "report.md").read_text()


def test_what_it_tells(tmp_path: Path) -> None:
    page, markdown = written(a_run(tmp_path), "stage legal: OutOfMemory")
    seen = parsed(page).seen
    assert seen.count("svg") == 5 + 2 + 5, "loss, rate, norm, tokens/s and a figure of each stage, two held out"
    for told in (page, markdown):
        assert "Failed: stage legal: OutOfMemory" in told
        assert "RollBack" in told
        assert "tiny/acc" in told
        assert "tokensPerSecond" in told
        assert "1,234" in told
        assert "0.5 ± 0.02" in told
        assert "the evaluation's gate: loss 3" in told or "the evaluation&#x27;s gate: loss 3" in told
        assert "attempt 2 begins; 15 steps are made again" in told
        assert "gopher.words" in told
        assert DIGEST in told
        assert "漢字" in told
        assert "pretrain.sequenceLength: 64" in told
    assert "alert(1)</script>" not in page
    assert page.count('class="mark"') >= 2, "restarts and actions stand in the curves"
    assert 'class="missing"' in page, "a loss that is no number is drawn as such"
    outside = re.sub(r"(?ms)^(`{3,})$.*?^\1$", "", markdown)
    assert "<script" not in re.sub(r"\\<", "", outside)
    assert "![](" not in outside


def test_how_to_serve_it_is_a_manifest(tmp_path: Path) -> None:
    _, markdown = written(a_run(tmp_path))
    text = markdown.split("## How to serve it")[1].split("```")[1]
    manifest = yaml.safe_load(text)
    assert manifest["spec"] == {
        "model": {"training": {"name": "chat", "stage": "base"}},
        "adapters": [{"name": "legal", "training": {"name": "chat", "stage": "legal"}}],
    }


def test_where_the_time_went(tmp_path: Path) -> None:
    _, base, legal = times(read_run(a_run(tmp_path)).stages)
    # 30 s after data; between the attempts 15
    assert base.seconds[WAITING] == pytest.approx(70 + 15)
    assert base.seconds["starting"] == 20
    assert base.seconds[LOST] == 15
    assert base.seconds["training"] == pytest.approx(20 + 15 + 80 - 15), "what a killed pod didn't tell is training"
    assert base.seconds["saving"] == 5
    assert base.gpu_seconds == pytest.approx(8 * 145)
    assert legal.held == 0, "a trainer of before told no times"


def test_a_page_is_bounded_whatever_the_run(tmp_path: Path) -> None:
    figures = {f"figure {n}": float(n) for n in range(300)}
    rows = [{**row, "figures": figures} for row in steps(2)] + steps(60_000, 3)
    rows += [{"step": 60_000, "attempt": n, "action": "Skip", "message": "x" * 9999} for n in range(1000)]
    rows += [{"step": 60_000, "samples": [{"prompt": "p" * 10**4, "answer": "a" * 10**4}] * 30} for _ in range(20)]
    leave(tmp_path, config("base", "pretrain", {"steps": 60_000}), rows)
    page, markdown = written(tmp_path)
    parsed(page)
    assert len(page) < 1_000_000
    assert len(markdown) < 500_000
    assert "every 4th is drawn" in page


def test_an_empty_folder_and_altered_files(tmp_path: Path) -> None:
    page, _ = written(tmp_path)
    assert "No stage has begun" in page
    folder = a_run(tmp_path / "run")
    (folder / "data" / "manifest.json").write_text("{")
    (folder / "stages" / "base" / "record.json").write_text("[]")
    page, _ = written(folder)
    assert "Stage legal" in page
    assert "Stage base" not in page


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.one_of(st.floats(), st.just(1e308), st.just(-1e308))), max_size=2000
    ),
)  # fmt: skip
def test_a_curve_keeps_what_matters(seen: list[tuple[int, float]]) -> None:
    curve = Curve()
    for step, value in seen:
        curve.see(step, value)
    assert len(curve.points) <= POINTS
    finite = [value for _, value in seen if math.isfinite(value)]
    assert sum(point.count + point.missing for point in curve.points) == len(seen)
    if finite:
        assert min(point.low for point in curve.known) == min(finite)
        assert max(point.high for point in curve.known) == max(finite)
    assert curve.summary()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("NaN")),
    lambda each: st.one_of(st.lists(each, max_size=3), st.dictionaries(st.text(max_size=4), each, max_size=3)),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["time", "attempt", "loss", "figures", "evaluation", "samples", "scores", "action", "message", "spent", "began",
     "lost", "gate", "tune"]
)  # fmt: skip


@given(st.lists(st.dictionaries(KEYS, JSON, max_size=6), max_size=8))
@settings(max_examples=2 * settings().max_examples)
def test_any_row_makes_a_page(found: list[dict[str, Any]]) -> None:
    """History is a file on a volume that others write to."""
    stage = StageRun("base", StageRecord(config=config("base", "pretrain", {"steps": 3})))
    for step, row in enumerate(found):
        see(stage, json.loads(json.dumps({"step": step, **row})))
    run = RunRecords([stage])
    told = list(blocks(run))
    parsed(to_html(title(run), told))
    to_markdown(title(run), told).encode()


def test_attempts_without_end_are_bounded(tmp_path: Path) -> None:
    rows = [{"step": 1, "time": BEGAN + n, "attempt": n, "began": BEGAN + n, "spent": {}} for n in range(1000)]
    leave(tmp_path, config("base", "pretrain", {"steps": 3}), rows)
    page, _ = written(tmp_path)
    assert len(page) < 100_000
