"""The run report in a real browser: all figures drawn, nothing wider than a phone, light and dark, no error."""

from __future__ import annotations

import json
import re
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.data.quality.page import page as quality_page
from llm_trainer.data.quality.report import FilterReport, Histogram, QualityReport, SourceReport
from llm_trainer.report.write import write_report
from tests.cluster.settings import REPOSITORY
from tests.unit.trainer_report.runs import a_run

# What a person would see. The page itself has no script: this stands at the end of a copy of it.
LOOK = """<script>
const box = element => element.getBoundingClientRect(), root = document.documentElement;
document.querySelectorAll("details").forEach(each => each.open = true);
const shapes = [...document.querySelectorAll("svg polyline, svg polygon, svg circle, svg line, svg rect")];
const inside = shape => { const own = box(shape), frame = box(shape.closest("svg"));
  return own.left >= frame.left - 1.5 && own.right <= frame.right + 1.5 && own.top >= frame.top - 1.5
    && own.bottom <= frame.bottom + 1.5 };
root.dataset.seen = JSON.stringify({
  width: root.scrollWidth, window: innerWidth, mode: document.compatMode,
  figures: [...document.querySelectorAll("svg")].map(each => [box(each).width, box(each).height]),
  curves: [...document.querySelectorAll("svg .line")].map(each => each.getTotalLength()),
  outside: shapes.filter(each => !inside(each)).map(each => each.outerHTML.slice(0, 200)),
  ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor,
});
</script>"""
DARK, LIGHT = 0, 1


@pytest.fixture(scope="session")
def browser() -> Path:
    script = REPOSITORY / "tools" / "chromium.sh"
    return Path(subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()) / "run"


def look(browser: Path, page: Path, scheme: int, width: int) -> dict[str, Any]:
    copy = page.with_suffix(".look.html")
    copy.write_text(page.read_text() + LOOK)
    options = ("--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--window-size={width},900",
               f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom")  # fmt: skip
    done = subprocess.run([browser, *options, copy.as_uri()], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    told = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert told, done.stdout[:500]
    seen: dict[str, Any] = json.loads(unescape(told[1]))
    return seen


def lightness(colour: str) -> float:
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


@pytest.fixture
def report(tmp_path: Path) -> Path:
    write_report(a_run(tmp_path / "run"))
    return tmp_path / "run" / "report.html"


@pytest.fixture
def quality(tmp_path: Path) -> Path:
    histogram = Histogram(edges=[0, 1, 2], documents=[3, 4], minimum=0.5, maximum=None)
    filters = [FilterReport(name="gopher", read=9, histograms=dict.fromkeys("abcd", histogram))]
    file = tmp_path / "quality.html"
    file.write_text(quality_page(QualityReport(sources=[SourceReport(name="web" * 40, filters=filters)])))
    return file


@pytest.mark.parametrize("name", ["report", "quality"])
@pytest.mark.parametrize("width", [320, 1200])
def test_a_page_in_a_browser(name: str, width: int, browser: Path, request: pytest.FixtureRequest) -> None:
    page: Path = request.getfixturevalue(name)
    for scheme in (DARK, LIGHT):
        seen = look(browser, page, scheme, width)
        assert seen["mode"] == "CSS1Compat"
        assert seen["window"] == width
        assert seen["width"] <= width, "the page is wider than the window"
        assert len(seen["figures"]) == page.read_text().count("<svg")
        assert all(min(size) > 50 for size in seen["figures"]), seen["figures"]
        assert all(length > 10 for length in seen["curves"]), seen["curves"]
        assert seen["outside"] == []
        ink, paper = lightness(seen["ink"]), lightness(seen["paper"])
        assert abs(ink - paper) > 150, "it can't be read"
        assert (paper < 128) == (scheme == DARK)
