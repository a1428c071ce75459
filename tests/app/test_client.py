"""An app by LangChain and by LlamaIndex: one contract for both, before the app's own server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_app.config import Example, Prompt
from llm_app_client import App, AppError, retrieve
from tests.app.conftest import Start

REPOSITORY = Path(__file__).parents[2]
QUESTION = "How often is the pump oiled?"
TOLD = {
    "langchain": """
from langchain_openai import ChatOpenAI
from llm_app_client.langchain import retriever, settings

def chat(app): return ChatOpenAI(**settings(app)).invoke(QUESTION).content
def stream(app): return [piece.text for piece in ChatOpenAI(**settings(app)).stream(QUESTION) if piece.text]
def found(retriever): return [(one.page_content, one.metadata) for one in retriever.invoke(QUESTION)]
""",
    "llama_index": """
from llama_index.core.base.llms.types import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from llm_app_client.llama_index import retriever, settings

def llm(app): return OpenAILike(**settings(app))
def chat(app): return llm(app).chat([ChatMessage(role="user", content=QUESTION)]).message.content
def stream(app): return [one.delta for one in llm(app).stream_chat([ChatMessage(content=QUESTION)]) if one.delta]
def found(retriever):
    return [(one.text, {**one.metadata, "score": one.score}) for one in retriever.retrieve(QUESTION)]
""",
}
ASK = """
import json, sys
from llm_app_client import App
QUESTION, url, key = sys.argv[1:]
{of_framework}
app = App(url, "help", key)
print(json.dumps({{"chat": chat(app), "stream": stream(app), "found": found(retriever(app)),
                   "one": found(retriever(app, knowledge=["manual"], top_k=1, where={{}}))}}))
"""


@pytest.fixture(scope="session")
def libraries() -> str:
    script = [str(REPOSITORY / "tools/libraries.sh"), "clients"]
    return subprocess.run(script, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("framework", TOLD)
async def test_a_framework_has_the_app_s_chat_and_documents(start: Start, libraries: str, framework: str) -> None:
    app = await start(key="s3cret", prompt=Prompt(system="Help.", examples=[Example(input="a", output="b")]))
    code = ASK.format(of_framework=TOLD[framework])
    path = os.pathsep.join([libraries, str(REPOSITORY / "client")])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, QUESTION, f"{app.url}/v1", "s3cret", stdout=subprocess.PIPE, cwd="/",
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    told = json.loads((await process.communicate())[0])
    assert (told["chat"], "".join(told["stream"])) == ("Every 40 hours [1].",) * 2
    assert len(told["stream"]) == 4, "as it comes"
    for asked in app.vllm.asked:
        assert [turn["role"] for turn in asked["messages"]] == ["system", "user", "assistant", "user"]
        assert "Oil the pump every 40 hours." in asked["messages"][-1]["content"], "the app's own prompt and documents"
    own = [one async for one in listed(app)]
    assert [[text, {**metadata}] for text, metadata in told["found"]] == own
    assert told["one"] == own[:1]


async def listed(app: Any) -> Any:
    """What the app itself finds, as a client is to have it."""
    _, found = await app.post("/v1/retrieve", {"query": QUESTION}, Authorization="Bearer s3cret")
    for one in found["data"]:
        yield [one["text"], {key: one[key] for key in ("knowledge", "source", "title", "revision", "score")}]


async def test_what_an_app_refuses_is_told(start: Start, in_thread: Any) -> None:
    app = await start(key="s3cret")
    with pytest.raises(AppError, match="show the app's key") as told:
        await in_thread(retrieve, App(f"{app.url}/v1", "help", key="wr0ng"), "oil")
    assert told.value.status == 401
    with pytest.raises(AppError, match="there is no 'other'"):
        await in_thread(retrieve, App(f"{app.url}/v1", "help", key="s3cret"), "oil", knowledge=["other"])
    with pytest.raises(AppError, match="can't be reached"):
        await in_thread(retrieve, App("http://127.0.0.1:1/v1", "help"), "oil")


def test_an_app_by_its_manifest() -> None:
    manifest = {"metadata": {"name": "help"}, "status": {"url": "http://help-app.team.svc/v1"}}
    app = App.of(manifest, key="s3cret")
    assert (app.url, app.name) == ("http://help-app.team.svc/v1", "help")
    assert "s3cret" not in repr(app)
    with pytest.raises(AppError, match="yet; wait until"):
        App.of({"metadata": {"name": "help"}})
