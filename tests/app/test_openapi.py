"""Operations of an OpenAPI document, called by an agent over real HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llm_app.team import Agent, Header, OpenApi, Team, Tool
from tests.app.conftest import Start, listening

ANSWER = {"tool": "answer"}
LOOPBACK = ["127.0.0.0/8"]
DOCUMENT = """
openapi: 3.1.0
paths:
  /items/{id}:
    put:
      operationId: change
      parameters:
      - {name: id, in: path, required: true, schema: {type: string}}
      - {name: tag, in: query, schema: {type: array, items: {type: string}}}
      - {name: X-From, in: header, schema: {type: string}}
      requestBody:
        required: true
        content:
          application/json:
            schema:
              type: object
              required: [count]
              properties: {count: {type: integer}, note: {type: string}}
"""


@asynccontextmanager
async def shop(document: str = DOCUMENT) -> AsyncIterator[tuple[str, list[Any]]]:
    """A server, and what it was asked; its document is at /openapi.yaml."""
    asked: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/openapi.yaml":
            asked.append(dict(request.headers))
            return web.Response(text=document)
        asked.append((request.method, request.raw_path, dict(request.headers), await request.text()))
        return web.json_response({"changed": True})

    application = web.Application()
    application.add_routes([web.route("*", "/{path:.*}", handler)])
    cleanups: list[web.AppRunner] = []
    url, _ = await listening(application, cleanups)
    try:
        yield url, asked
    finally:
        await cleanups[0].cleanup()


def team(openapi: OpenApi) -> Team:
    return Team(tools=[Tool(name="shop", openapi=openapi)], agents=[Agent(name="clerk", tools=["shop"])])


def call(**arguments: Any) -> dict[str, Any]:
    return {"tool": "shop_change", "arguments": {"tag": None, "X-From": None, **arguments}}


async def test_an_operation_is_the_request_that_the_document_says(start: Start, monkeypatch: Any) -> None:
    monkeypatch.setenv("LLM_APP_TOOL_SECRET_0_0", "s3cret")
    async with shop() as (url, asked):
        headers = [Header(name="X-Key", variable="LLM_APP_TOOL_SECRET_0_0")]
        openapi = OpenApi(url=f"{url}/v2/", document=DOCUMENT, headers=headers, allowed_addresses=LOOPBACK)
        app = await start(team=team(openapi), knowledge=False)
        given = {"id": "a/../b?c", "tag": ["x&y", "é"], "X-From": "here", "body": {"count": 3, "note": None}}
        app.vllm.decisions = [call(**given), ANSWER]
        found = (await app.ask("Change it"))[1]
    assert [one["outcome"] for one in found["steps"]] == ["answered"], found
    [(method, path, sent, body)] = asked
    assert (method, path) == ("PUT", "/v2/items/a%2F..%2Fb%3Fc?tag=x%26y&tag=%C3%A9")
    assert (sent["X-From"], sent["X-Key"], sent["Content-Type"]) == ("here", "s3cret", "application/json")
    assert json.loads(body) == {"count": 3}
    assert "shop_change" in app.vllm.asked[0]["messages"][0]["content"]


async def test_a_header_holds_one_line(start: Start) -> None:
    async with shop() as (url, asked):
        app = await start(team=team(OpenApi(url=url, document=DOCUMENT, allowed_addresses=LOOPBACK)), knowledge=False)
        app.vllm.decisions = [call(id="a", body={"count": 1, "note": None}, **{"X-From": "a\r\nX-Key: mine"}), ANSWER]
        found = (await app.ask("Change it"))[1]
    assert [one["outcome"] for one in found["steps"]] == ["invalid"]
    assert not asked


@pytest.mark.parametrize("where", ["path", "location"])
async def test_a_document_elsewhere_is_read_before_the_server_answers(start: Start, where: str, tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(DOCUMENT)
    async with shop() as (url, asked):
        place = {"path": str(file)} if where == "path" else {"location": f"{url}/openapi.yaml"}
        headers = [Header(name="X-Key", value="s3cret")]
        app = await start(
            team=team(OpenApi(url=url, headers=headers, allowed_addresses=LOOPBACK, **place)), knowledge=False
        )
        assert len(asked) == (where == "location")
        assert "s3cret" not in str(asked), "the key is the server's alone"
        app.vllm.decisions = [call(id="a", body={"count": 1, "note": None}), ANSWER]
        found = (await app.ask("Change it"))[1]
    assert [one["outcome"] for one in found["steps"]] == ["answered"], found


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ({"location": "{url}/openapi.yaml", "allowed_addresses": []}, "no public address"),
        ({"location": "http://127.0.0.1:9/x"}, "can't be read: ClientConnector"),
        ({"path": "/nowhere/openapi.yaml"}, "No such file"),
        ({"location": "{url}/openapi.yaml"}, "convert it to OpenAPI 3"),
    ],
)
async def test_a_document_that_can_not_be_used_ends_the_start(start: Start, place: Any, says: str) -> None:
    async with shop('swagger: "2.0"') as (url, _):
        told = {"allowed_addresses": LOOPBACK, **place}
        if "location" in place:
            told["location"] = place["location"].format(url=url)
        with pytest.raises(ValueError, match=f"spec.tools: shop: its document .*{says}"):
            await start(team=team(OpenApi(url=url, **told)), knowledge=False)
