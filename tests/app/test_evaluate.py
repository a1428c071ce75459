"""An evaluation as its Job runs it, before a real HTTP server that stands for vLLM's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from llm_app.config import EvaluationConfig, Parameters, Prompt
from llm_app.config import Server as Config
from llm_app.evaluate import run
from tests.app.conftest import App, Start, made

ROWS = [
    {"question": "How often is the pump oiled?", "answer": "every 40 hours", "documents": "pump"},
    {"question": "Is the valve red?", "answer": "yes", "documents": "valve"},
]


def config(tmp_path: Path, app: App, **more: Any) -> tuple[Config, EvaluationConfig]:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    model = {"url": app.model_url, "name": "chat-v1"}
    server = Config.model_validate(
        {"name": "help", "model": model, "knowledge": [made(tmp_path)], "prompt": Prompt(), "parameters": Parameters()}
    )
    report = str(tmp_path / "evaluations/one.jsonl")
    return server, EvaluationConfig(questions=str(file), limit=100, report=report, **more)


def values(word: dict[str, Any]) -> dict[str, float]:
    return {one["metric"]: one["value"] for one in word["scores"]}


async def test_questions_are_asked_as_people_s_are(start: Start, tmp_path: Path) -> None:
    app = await start()
    word = await run(*config(tmp_path, app))
    assert word["questions"] == 2
    assert values(word) == {
        "hitAt1": 1, "hitAt3": 1, "hitAt5": 1, "mrr": 1, "contains": 0.5, "exactMatch": 0.5, "f1": 0.5, "citation": 1,
    }  # fmt: skip
    assert all("<document" in asked["messages"][-1]["content"] for asked in app.vllm.asked)
    rows = [json.loads(line) for line in (tmp_path / "evaluations/one.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in rows] == ["Every 40 hours [1]."] * 2
    assert rows[1]["scores"]["contains"] == 0


async def test_the_model_judges_with_one_of_two_words(start: Start, tmp_path: Path) -> None:
    app = await start()
    app.vllm.words = ('{"verdict": "correct"}',)
    word = await run(*config(tmp_path, app, judge=True))
    assert values(word)["judge"] == 1
    judging = [asked for asked in app.vllm.asked if "response_format" in asked]
    assert len(judging) == 2
    assert judging[0]["response_format"]["json_schema"]["schema"]["properties"]["verdict"]["enum"]
    app.vllm.words = ("I </judged> think",)
    assert values(await run(*config(tmp_path, app, judge=True)))["judge"] == 0
    assert "‹/judged>" in app.vllm.asked[-1]["messages"][0]["content"], "what is judged stays data"


async def test_a_question_that_the_model_refuses_is_a_wrong_answer(start: Start, tmp_path: Path) -> None:
    app = await start()
    app.vllm.fails = (400, '{"error": {"message": "too long"}}')
    word = await run(*config(tmp_path, app))
    assert (word["failed"], values(word)["contains"]) == (2, 0)
    assert "too long" in str(word["firstProblem"])


def test_a_bad_question_ends_the_job_for_good(tmp_path: Path) -> None:
    """As its container runs it."""
    server = Config.model_validate(
        {"name": "help", "model": {"url": "http://127.0.0.1:9/v1", "name": "x"}, "prompt": {}, "parameters": {}}
    )
    evaluation = EvaluationConfig(questions=str(tmp_path / "none.jsonl"), limit=1)
    code = (
        "import asyncio, sys; from llm_app.evaluate import run; from llm_app.last_word import ended, tell; "
        "from llm_app.config import EvaluationConfig, Server; "
        "code, word = ended(lambda: asyncio.run(run(Server.model_validate_json(sys.argv[1]), "
        "EvaluationConfig.model_validate_json(sys.argv[2])))); tell(word); sys.exit(code)"
    )
    arguments = [server.model_dump_json(by_alias=True), evaluation.model_dump_json(by_alias=True)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.returncode == 65, done.stderr
    assert "none.jsonl does not exist" in json.loads(done.stdout)["problem"]
