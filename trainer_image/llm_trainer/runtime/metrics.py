"""Prometheus metrics of a training pod, on a registry of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from llm_trainer.protocol import DataFigures, ReadTokens
from llm_trainer.runtime.phases import PhaseClock, PhaseSeconds
from llm_trainer.runtime.process_figures import PodFigures


class Figure:
    """Not there before a step has told it: a loss of 0 would be a lie."""

    def __init__(self, gauge: Gauge, stage: str) -> None:
        self._gauge, self._stage = gauge, stage

    def set(self, value: float) -> None:
        self._gauge.labels(self._stage).set(value)


class Metrics:
    def __init__(self, stage: str) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"llm_trainer_{name}", text, ["stage", *labels], registry=self.registry)

        def figure(name: str, text: str) -> Figure:
            return Figure(gauge(name, text), stage)

        self.loss = figure("loss", "Training loss over the global batch; of pretrain and sft in nats per token.")
        self.learning_rate = figure("learning_rate", "Learning rate.")
        self.gradient_norm = figure("gradient_norm", "Global gradient norm before clipping.")
        self.step = gauge("step", "Optimizer steps made.").labels(stage)
        self.tokens = gauge("tokens_total", "Tokens trained on, all processes and attempts.").labels(stage)
        self.tokens_per_second = figure("tokens_per_second", "Tokens per second, all processes.")
        self.mfu = figure("mfu", "Share of the GPUs' peak arithmetic that training takes, where it is known.")
        self.last_step = gauge("last_step_timestamp_seconds", "Time of the last step, since the epoch.").labels(stage)
        self.checkpoint_step = gauge("checkpoint_step", "Step of the newest checkpoint.").labels(stage)
        self.evaluation = gauge("evaluation", "Newest held-out figures, and scores of tasks.", "name")
        self.figures = gauge("figures", "Other figures of the last step, such as rewards and entropy.", "name")
        self.expert_load = gauge(
            "expert_load", "Share of a layer's routed tokens, in the last step.", "layer", "expert"
        )
        self.start_seconds = gauge("start_seconds", "From the pod's start to the first step, by part.", "part")
        self.data_tokens = gauge("data_tokens", "Tokens of the prepared corpus.", "domain", "language")
        self.dropped_documents = gauge("data_dropped_documents", "Documents that were left out.", "reason")
        self.read_tokens = gauge("read_tokens", "Tokens that were read of a source.", "source", "domain", "language")
        self.asked_share = gauge("asked_share", "Share of a source that the mixture asks for, so far.", "source")
        self.source_epochs = gauge("source_epochs", "Passes over a source, with those of stages before.", "source")
        self.stage = stage
        self.goodput = gauge(
            "goodput", "Share of this attempt's time in steps; the rest is starts, evaluations, checkpoints, results."
        ).labels(stage)
        self.heartbeat_age = gauge("heartbeat_age_seconds", "Since the last sign of life of this process.").labels(
            stage
        )
        self.lost_seconds = gauge("lost_seconds", "Work of earlier attempts that this one makes again.").labels(stage)
        self.step_seconds = Histogram(
            "llm_trainer_step_seconds", "Time of one optimizer step.", ["stage"], registry=self.registry,
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
        ).labels(stage)  # fmt: skip
        self.checkpoint_seconds = Histogram(
            "llm_trainer_checkpoint_seconds", "Time to commit a checkpoint.", ["stage"], registry=self.registry,
            buckets=(0.5, 1, 5, 15, 60, 300, 900),
        ).labels(stage)  # fmt: skip
        self.checkpoint_stall_seconds = Histogram(
            "llm_trainer_checkpoint_stall_seconds", "Time for which the training stood still for a checkpoint.",
            ["stage"], registry=self.registry, buckets=(0.01, 0.1, 0.5, 1, 5, 15, 60, 300),
        ).labels(stage)  # fmt: skip
        self.skipped_steps = Counter(
            "llm_trainer_skipped_steps", "Steps left out because a gradient was not finite.", ["stage"],
            registry=self.registry,
        ).labels(stage)  # fmt: skip

        self.watch_actions = Counter(
            "llm_trainer_loss_watch_actions", "What the loss watch did, by action.", ["stage", "action"],
            registry=self.registry,
        )  # fmt: skip

    def show_time(self, clock: PhaseClock, heartbeat_age: Callable[[], float]) -> None:
        """What is known when Prometheus asks, and at no moment before."""
        self.registry.register(PhaseSeconds(self.stage, clock))
        self.registry.register(PodFigures(self.stage))
        self.goodput.set_function(clock.goodput)
        self.heartbeat_age.set_function(heartbeat_age)

    def show_data(self, figures: DataFigures | None) -> None:
        for each in figures.tokens if figures else ():
            self.data_tokens.labels(self.stage, each.domain, each.language).set(each.tokens)
        for dropped in figures.dropped if figures else ():
            self.dropped_documents.labels(self.stage, dropped.reason).set(dropped.documents)

    def show_read(self, sources: Iterable[ReadTokens]) -> None:
        for each in sources:
            name = each.source or ""
            self.read_tokens.labels(self.stage, name, each.domain, each.language).set(each.tokens)
            self.asked_share.labels(self.stage, name).set(each.asked)
            self.source_epochs.labels(self.stage, name).set(each.epochs or 0.0)

    def show_expert_load(self, load: list[list[float]]) -> None:
        """`load`: [layer with experts][expert], counted from 0."""
        for layer, shares in enumerate(load):
            for expert, share in enumerate(shares):
                self.expert_load.labels(self.stage, str(layer), str(expert)).set(share)
