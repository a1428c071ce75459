"""Metrics of agents and tools, of servers that have them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class ToolFigures:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "llm_app_tool_calls",
            "Calls of tools; outcome: answered, failed, timeout, blocked, invalid or refused.",
            ("tool", "outcome"),
            registry=registry,
        )
        self.seconds = Histogram("llm_app_tool_seconds", "Of one call.", ("tool",), buckets=SECONDS, registry=registry)
        self.tokens = Counter(
            "llm_app_agent_tokens", "Tokens that the model has read and written.", ("agent", "kind"), registry=registry
        )
        self.turns = Counter("llm_app_agent_turns", "Turns of agents.", ("agent",), registry=registry)
        self.limits = Counter(
            "llm_app_limits", "Answers that were given at a limit: steps, turns, tokens or seconds.",
            ("limit",), registry=registry,
        )  # fmt: skip
