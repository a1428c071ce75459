"""Spans of requests, received by a small collector of OTLP over HTTP, and a collector that is none."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from llm_app.config import Model, Parameters, Prompt, Tracing
from llm_app.config import Server as Config
from llm_app.team import Agent, Team
from tests.app.conftest import App, Start, listening, until
from tests.app.test_agents import ANSWER, CALL, http, weather
from tests.app.test_server import start_process

Process = subprocess.Popen[bytes]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """``spans`` by name; ``headers`` that the model's server was shown."""

    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}
        self.resource: dict[str, str] = {}
        self.bytes = b""

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bytes += body
        parse: Any = ExportTraceServiceRequest.FromString
        told = parse(body)
        for resource in told.resource_spans:
            self.resource |= {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans |= {one.name: one for one in scope.spans}
        return web.Response()


@asynccontextmanager
async def server(
    app: App, folder: Path, endpoint: str, **more: Any
) -> AsyncIterator[tuple[str, subprocess.Popen[bytes]]]:
    """The process as the container runs it, before the stand-in of an app."""
    config = Config(name="help", revision="r7", model=Model(url=app.model_url, name="m"), prompt=Prompt(),
                    parameters=Parameters(), tracing=Tracing(endpoint=endpoint), **more)  # fmt: skip
    (folder / "server.json").write_text(config.model_dump_json(by_alias=True))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start_process(folder, port)
    try:
        while True:
            try:
                async with app.session.get(f"http://127.0.0.1:{port}/ready"):
                    break
            except aiohttp.ClientConnectionError:
                assert process.poll() is None
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


async def ended(process: Process) -> None:
    process.send_signal(signal.SIGTERM)
    await until(lambda: process.poll() is not None)
    assert process.returncode == 0


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


async def test_a_request_is_one_trace_from_the_client_to_the_model(start: Start, tmp_path: Path) -> None:
    collector, cleanups = Collector(), list[web.AppRunner]()
    application = web.Application()
    application.add_routes([web.post("/v1/traces", collector.receive)])
    endpoint, _ = await listening(application, cleanups)
    async with weather() as (url, _):
        team = Team(tools=[http(url)], agents=[Agent(name="clerk", tools=["weather"])])
        app = await start(knowledge=False)
        app.vllm.decisions = [CALL, ANSWER]
        async with server(app, tmp_path, endpoint, team=team) as (own, process):
            body = {"messages": [{"role": "user", "content": "My s3cret question"}]}
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            async with app.session.post(f"{own}/v1/chat/completions", json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
            await ended(process)  # which sends what is left
    await cleanups[0].cleanup()
    spans = collector.spans
    assert spans.keys() == {"POST /v1/chat/completions", "invoke_agent clerk", "chat m", "execute_tool weather"}
    assert {one.trace_id.hex() for one in spans.values()} == {TRACE}
    whole, turn = spans["POST /v1/chat/completions"], spans["invoke_agent clerk"]
    assert whole.parent_span_id.hex() == PARENT
    assert turn.parent_span_id == whole.span_id
    assert {spans[name].parent_span_id for name in ("chat m", "execute_tool weather")} == {turn.span_id}
    assert attributes(spans["execute_tool weather"])["llm_app.outcome"] == "answered"
    assert attributes(spans["chat m"])["gen_ai.request.model"] == "m"
    assert (collector.resource["service.name"], collector.resource["service.version"]) == ("help", "r7")
    assert all(told.startswith(f"00-{TRACE}-") for told in app.vllm.traces), app.vllm.traces
    assert len(app.vllm.traces) == 3
    assert b"s3cret" not in collector.bytes, "what is said is in no span"


async def test_a_collector_that_is_away_or_never_answers_costs_a_request_nothing(start: Start, tmp_path: Path) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections, and says nothing
    with socket.create_server(("127.0.0.1", 0)) as free:
        away = free.getsockname()[1]
    app = await start(knowledge=False)
    for port in (silent.getsockname()[1], away):
        async with server(app, tmp_path, f"http://127.0.0.1:{port}") as (own, process):
            for _ in range(300):
                async with app.session.post(f"{own}/v1/retrieve", json={"query": "x"}) as answer:
                    assert answer.status == 200
            body = json.dumps({"messages": [{"role": "user", "content": "x"}]})
            async with app.session.post(f"{own}/v1/chat/completions", data=body) as answer:
                assert answer.status == 200
            began = time.monotonic()
            await ended(process)
            assert time.monotonic() - began < 60, "the pod's end does not wait for it"
    silent.close()
