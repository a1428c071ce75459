"""Spans of requests, in OpenTelemetry's form: what took how long, told to a collector where one is named.

Without one nothing is recorded, and OpenTelemetry's SDK isn't imported. No span has what a user, a document, a tool or
the model said. Names and attributes are those of OpenTelemetry's conventions for generative AI.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from llm_app.config import Tracing

TRACER = trace.get_tracer("llm_app")
QUEUE, BATCH = 2048, 256  # spans; what comes beyond while the collector is away is lost
DELAY_MS, EXPORT_SECONDS = 2000, 5
END_SECONDS = 5.0  # for the last spans, when the pod leaves
ENDPOINT = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")  # OpenTelemetry's own variables


@asynccontextmanager
async def traced(settings: Tracing | None, name: str, revision: str) -> AsyncIterator[None]:
    """Sends spans for as long as this lasts. ``name``: of the service, if OTEL_SERVICE_NAME has none."""
    if settings is None and not any(map(os.environ.get, ENDPOINT)):
        yield
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    # else it tells of each batch that is lost
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    exporter = OTLPSpanExporter(
        endpoint=f"{settings.endpoint.rstrip('/')}/v1/traces" if settings else None, timeout=EXPORT_SECONDS
    )
    told = {"service.name": os.environ.get("OTEL_SERVICE_NAME", name), "service.version": revision}
    sampler = ParentBased(TraceIdRatioBased(settings.sample_ratio)) if settings else None
    provider = TracerProvider(resource=Resource.create(told), sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=QUEUE, max_export_batch_size=BATCH, schedule_delay_millis=DELAY_MS)
    )
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        try:
            await asyncio.wait_for(asyncio.to_thread(provider.shutdown), END_SECONDS)
        except TimeoutError:
            logging.getLogger(__name__).warning("tracing: the collector does not take the last spans")


@contextmanager
def span(name: str, kind: SpanKind = SpanKind.INTERNAL, **attributes: Any) -> Iterator[Span]:
    """The current one meanwhile. ``attributes``: two underscores in a name stand for a dot."""
    with TRACER.start_as_current_span(
        name, kind=kind, attributes=dotted(attributes), record_exception=False, set_status_on_exception=False
    ) as made:
        try:
            yield made
        except BaseException as error:
            failed(made, type(error).__name__)
            raise


@contextmanager
def of_stream(name: str, **attributes: Any) -> Iterator[Span]:
    """A client's span that is not the current one: a generator's steps may have several contexts."""
    made = TRACER.start_span(name, kind=SpanKind.CLIENT, attributes=dotted(attributes))
    try:
        yield made
    except BaseException as error:
        failed(made, type(error).__name__)
        raise
    finally:
        made.end()


@contextmanager
def of_request(name: str, headers: Mapping[str, str], **attributes: Any) -> Iterator[Span]:
    """A client's request, as a part of its trace if it tells of one."""
    with TRACER.start_as_current_span(
        name, propagate.extract(headers), SpanKind.SERVER, dotted(attributes), record_exception=False,
        set_status_on_exception=False,
    ) as made:  # fmt: skip
        yield made


def turn_of(agent: str) -> dict[str, Any]:
    """Attributes of an agent's turn."""
    return {"gen_ai__operation__name": "invoke_agent", "gen_ai__agent__name": agent}


def failed(one: Span, why: str) -> None:
    one.set_status(Status(StatusCode.ERROR))
    one.set_attribute("error.type", why)


def dotted(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in attributes.items() if value is not None}


def used(one: Span, usage: Any) -> None:
    """Tokens that the model tells of."""
    for kind, name in (("prompt_tokens", "input"), ("completion_tokens", "output")):
        count = usage.get(kind) if isinstance(usage, dict) else None
        if isinstance(count, int):
            one.set_attribute(f"gen_ai.usage.{name}_tokens", count)


def passing_on() -> aiohttp.TraceConfig:
    """For sessions whose server is to be a part of the trace: W3C's traceparent."""

    async def started(session: Any, context: Any, request: aiohttp.TraceRequestStartParams) -> None:
        del session, context
        headers: MutableMapping[str, str] = request.headers
        propagate.inject(headers)

    made = aiohttp.TraceConfig()
    made.on_request_start.append(started)
    return made
