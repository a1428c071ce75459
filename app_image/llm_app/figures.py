"""The server's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)


class Figures:
    """Of one server; a registry of its own, so that a test may have two."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "llm_app_requests", "Requests by path and HTTP status.", ("path", "status"), registry=self.registry
        )
        self.first = Histogram(
            "llm_app_first_piece_seconds", "From a request to the first of its answer.",
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.whole = Histogram(
            "llm_app_answer_seconds", "From a request to the end of its answer.",
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.broken = Counter(
            "llm_app_broken_answers", "Streams that ended in an error after their first piece, with status 200.",
            registry=self.registry,
        )  # fmt: skip
        self.retrieval = Histogram(
            "llm_app_retrieval_seconds", "Of one search in all knowledge.", buckets=SHORT, registry=self.registry
        )
        self.embedding = Histogram(
            "llm_app_embedding_seconds", "Of embedding one question.", buckets=SHORT, registry=self.registry
        )
        self.searched_less = Counter(
            "llm_app_searched_less",
            "Searches that did less than wanted, such as by words alone, as the embedding server did not answer.",
            ("knowledge",),
            registry=self.registry,
        )
        self.tokens = Counter(
            "llm_app_tokens", "Tokens that the model's server has counted.", ("kind",), registry=self.registry
        )
        self.passages = Counter("llm_app_passages", "Passages that were sent with questions.", registry=self.registry)
        self.forgotten = Counter(
            "llm_app_forgotten_turns", "Turns of conversations that had no room.", registry=self.registry
        )
        self.chunks = Gauge("llm_app_chunks", "Of each knowledge base.", ("knowledge",), registry=self.registry)
        self.made = Gauge(
            "llm_app_index_timestamp_seconds", "When the index in use was made, since the epoch.",
            ("knowledge",), registry=self.registry,
        )  # fmt: skip
        self.running = Gauge("llm_app_running_requests", "Requests that are answered now.", registry=self.registry)
        self.waiting = Gauge("llm_app_waiting_requests", "Requests that wait for their turn.", registry=self.registry)
