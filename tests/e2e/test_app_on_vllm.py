"""What an app asks of vLLM, asked of the real one: calls by a regular expression, and embeddings. Without a cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from llm_app.config import Chunking, Document, Embedding, IndexConfig, IndexSource, Knowledge, Retrieval
from llm_app.config import Server as Config
from llm_app.figures import Figures
from llm_app.index import make
from llm_app.model import Client
from llm_app.opening import opened
from llm_app.requests import ChatRequest
from llm_app.server import chat_of
from tests.e2e import in_image
from tests.e2e.in_image import launched
from tests.e2e.test_serving_image import image, models

__all__ = ["image", "models"]

ASKED = 50
DOCUMENTS = [Document(title=title, text=text) for title, text in (("pump", "Oil the pump."), ("valve", "It is red."))]
CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "unit": {"enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city", "days", "unit"],
    "additionalProperties": False,
}
CALLS: list[dict[str, Any]] = []


def weather(city: str, days: int, unit: str) -> str:
    """A tool of the test."""
    assert isinstance(city, str)
    assert len(city) <= 20
    assert isinstance(days, int)
    assert 1 <= days <= 14
    assert unit in ("celsius", "fahrenheit")
    CALLS.append({"city": city, "days": days, "unit": unit})
    return "Sunny."


def config(port: int, **more: Any) -> Config:
    model = {"url": f"http://127.0.0.1:{port}/v1", "name": "tiny", "contextTokens": 8192}
    return Config.model_validate({"name": "help", "model": model, "prompt": {}, "parameters": {"maxTokens": 8}, **more})


async def test_a_model_that_knows_nothing_calls_tools_rightly(image: str, models: Path, tmp_path: Path) -> None:
    """Random weights: what is written is chance but for its form. Each call is valid, each loop ends with an answer."""
    python = {"entryPoint": f"{__name__}:weather", "parameters": CITY}
    team = {
        "tools": [{"name": "weather", "description": "Tells it.", "python": python}],
        "agents": [{"name": "one", "instructions": "Help.", "tools": ["weather"], "steps": 2}],
    }
    with launched(image, models, tmp_path, f"{in_image.MODELS}/long", "--max-model-len=8192") as vllm:
        vllm.until_ready()
        given, figures = config(vllm.port, team=team), Figures()
        async with (
            opened([], figures) as retriever,
            Client(given.model) as client,
            chat_of(given, retriever, client, figures) as chat,
        ):
            for seed in range(ASKED):
                request = ChatRequest.model_validate(
                    {"messages": [{"role": "user", "content": "Weather?"}], "seed": seed, "temperature": 1}
                )
                answer = await chat.answer(request)
                assert answer["choices"][0]["finish_reason"] in ("stop", "length"), answer
                assert {one["outcome"] for one in answer["steps"]} <= {"answered"}, answer["steps"]
    assert CALLS, "of 50 random decisions some are calls"


async def test_documents_are_found_by_what_vllm_embeds(image: str, models: Path, tmp_path: Path) -> None:
    with launched(image, models, tmp_path, f"{in_image.MODELS}/embedder", "--runner=pooling") as vllm:
        vllm.until_ready()
        embedding = Embedding(url=f"http://127.0.0.1:{vllm.port}/v1", name="tiny", model="one")
        source = IndexSource(name="notes", documents=DOCUMENTS)
        folder = str(tmp_path / "index")
        told = await asyncio.to_thread(
            make,
            IndexConfig(knowledge="k", revision="r", folder=folder, chunking=Chunking(), sources=[source],
                        embedding=embedding)
        )  # fmt: skip
        assert (told["chunks"], told["dimensions"]) == (2, 128)
        settings = Knowledge(name="k", revision="r", folder=f"{folder}/r", retrieval=Retrieval(mode="dense"),
                             embedding=embedding)  # fmt: skip
        async with opened([settings], Figures()) as retriever:
            found = await retriever.search("pump\n\nOil the pump.")
            assert not found.problems
            assert found.passages[0].title == "pump"
            long = await retriever.search("word " * 5000)
            assert not long.problems, "a question longer than the model reads is cut"
