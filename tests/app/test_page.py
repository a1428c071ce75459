"""The page for people, in a real browser: what it shows, and that nothing anybody writes becomes more than text."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from llm_app.config import Chunking, Document, IndexConfig, IndexSource, Knowledge, Retrieval
from llm_app.index import make
from llm_app.team import Agent, Sessions, Team
from tests.app.chromium import Page, browser, page
from tests.app.conftest import Start
from tests.app.test_agents import ANSWER, http, weather

ATTACK = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'><b id=made>bold</b> javascript:alert(3) [1]"
ASK = """(() => {{ const box = document.getElementById("question"); box.value = {0!r};
  document.getElementById("form").requestSubmit(); }})()"""
IDLE = "!document.getElementById('send').disabled || document.querySelector('.approval button:not(:disabled)')"
TURNS = "Array.from(document.querySelectorAll('.turn')).map((one) => one.className + ': ' + one.textContent)"
CLICK = "Array.from(document.querySelectorAll('.approval button')).find((one) => one.textContent === {!r}).click()"


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncIterator[Page]:
    async with browser(tmp_path / "profile") as at, page(at) as made:
        yield made


async def ask(shown: Page, text: str) -> list[str]:
    """What the page has then."""
    before = await shown.run("document.querySelectorAll('.turn').length")
    await shown.run(ASK.format(text))
    await shown.until(f"document.querySelectorAll('.turn').length >= {before + 2} && ({IDLE})")
    found: list[str] = await shown.run(TURNS)
    return found


def attacked(folder: Path) -> Knowledge:
    documents = [Document(title=f"pump {ATTACK}", text=f"Oil the pump. {ATTACK}")]
    sources = [IndexSource(name="notes", documents=documents)]
    make(IndexConfig(knowledge="manual", revision="r", folder=str(folder), chunking=Chunking(), sources=sources))
    return Knowledge(name="manual", revision="r", folder=str(folder / "r"), retrieval=Retrieval())


async def test_what_others_write_stays_text(start: Start, shown: Page, tmp_path: Path) -> None:
    app = await start(bases=[attacked(tmp_path / "index")])
    app.vllm.words = tuple(re.findall(r".{1,7}", ATTACK))
    await shown.open(app.url + "/")
    turns = await ask(shown, f"pump {ATTACK}")
    assert turns == [f"turn user: pump {ATTACK}", f"turn assistant: {ATTACK}"]
    assert await shown.run("document.title") == "help"
    await shown.run("document.querySelector('details').open = true")
    told = await shown.run("document.querySelector('details').textContent")
    assert told.startswith("Sources (1)[1] pump <img src=x onerror=alert(1)>")
    assert await shown.run("document.querySelectorAll('#made, img, main script').length") == 0
    app.vllm.fails = (400, '{"error": {"message": "<img src=x onerror=alert(4)>"}}')
    assert "<img src=x onerror=alert(4)>" in (await ask(shown, "again"))[-1]
    assert await shown.run("document.getElementById('question').value") == "again", "nothing typed is lost"
    assert not shown.problems


@pytest.mark.parametrize("approve", [True, False])
async def test_a_call_that_waits_has_its_buttons(start: Start, shown: Page, tmp_path: Path, approve: bool) -> None:
    async with weather() as (url, asked):
        agent = Agent(name="clerk", tools=["weather"], require_approval=["weather"])
        made = Team(tools=[http(url + "/of/{city}")], agents=[agent], sessions=Sessions(folder=str(tmp_path / "s")))
        app = await start(team=made, knowledge=False)
        app.vllm.decisions = [{"tool": "weather", "arguments": {"city": "<b id=made>Oslo</b>"}}, ANSWER]
        await shown.open(app.url + "/")
        assert "May I?" in (await ask(shown, "Weather?"))[-1]
        section = await shown.run("document.querySelector('.approval').textContent")
        assert section.startswith("clerk would call weather")
        assert '"city": "<b id=made>Oslo</b>"' in section
        assert await shown.run("document.getElementById('question').disabled"), "the call comes first"
        assert not asked
        await shown.run(CLICK.format("Approve" if approve else "Deny"))
        await shown.until("!document.getElementById('question').disabled")
        assert len(asked) == approve
        assert (await shown.run(TURNS))[-1] == "turn assistant: Every 40 hours [1]."
        outcome = "answered" if approve else "refused"
        heads = "Array.from(document.querySelectorAll('summary')).map((one) => one.textContent)"
        assert f"clerk called weather: {outcome}" in await shown.run(heads)
        app.vllm.decisions = [ANSWER]
        await ask(shown, "And now?")
        said = str(app.vllm.asked[-1]["messages"])
        assert said.index("Weather?") < said.index("Every 40 hours") < said.index("And now?"), "one session"
        await shown.run("document.getElementById('fresh').click()")
        await ask(shown, "Who am I?")
        assert "Weather?" not in str(app.vllm.asked[-1]["messages"]), "a new chat is another session"
    assert await shown.run("document.querySelectorAll('#made').length") == 0
    assert not shown.problems


async def test_the_key_is_asked_for_with_the_first_question(start: Start, shown: Page) -> None:
    app = await start(key="k3y")
    await shown.open(app.url + "/")
    shown.answers = ["wrong", "k3y"]
    assert (await ask(shown, "Oil?"))[-1] == "turn assistant: Every 40 hours [1]."
    assert not shown.answers
    assert not shown.problems


async def test_phones_and_both_colours(start: Start, shown: Page, tmp_path: Path) -> None:
    app = await start(bases=[attacked(tmp_path / "index")])
    app.vllm.words = ("x" * 5000,)
    colours: list[Any] = []
    for scheme in ("light", "dark"):
        await shown.scheme(scheme)
        for width in (320, 1200):
            await shown.width(width)
            await shown.open(app.url + "/")
            await ask(shown, "y" * 3000)
            assert await shown.run("document.documentElement.scrollWidth <= innerWidth"), (scheme, width)
        colours.append(await shown.run(
            "(() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; })()"
        ))  # fmt: skip
    assert colours == [["rgb(255, 255, 255)", "rgb(0, 0, 0)"], ["rgb(18, 18, 18)", "rgb(255, 255, 255)"]]
    assert not shown.problems
