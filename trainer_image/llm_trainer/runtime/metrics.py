"""Prometheus metrics of a training pod, on a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    def __init__(self, stage: str) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"llm_trainer_{name}", text, ["stage", *labels], registry=self.registry)

        self.loss = gauge("loss", "Training loss over the global batch; of pretrain and sft in nats per token.").labels(
            stage
        )
        self.learning_rate = gauge("learning_rate", "Learning rate.").labels(stage)
        self.gradient_norm = gauge("gradient_norm", "Global gradient norm before clipping.").labels(stage)
        self.step = gauge("step", "Optimizer steps made.").labels(stage)
        self.tokens = gauge("tokens_total", "Tokens trained on, all processes and attempts.").labels(stage)
        self.tokens_per_second = gauge("tokens_per_second", "Tokens per second, all processes.").labels(stage)
        self.last_step = gauge("last_step_timestamp_seconds", "Time of the last step, since the epoch.").labels(stage)
        self.gpu_memory = gauge("gpu_memory_peak_bytes", "Peak of this process's tensors on its GPU; 0 on CPU.").labels(
            stage
        )
        self.checkpoint_step = gauge("checkpoint_step", "Step of the newest checkpoint.").labels(stage)
        self.evaluation = gauge("evaluation", "Newest held-out figures.", "name")
        self.figures = gauge("figures", "Other figures of the last step, such as rewards and entropy.", "name")
        self.expert_load = gauge(
            "expert_load", "Share of a layer's routed tokens, in the last step.", "layer", "expert"
        )
        self.start_seconds = gauge("start_seconds", "From the pod's start to the first step, by part.", "part")
        self.stage = stage
        self.step_seconds = Histogram(
            "llm_trainer_step_seconds", "Time of one optimizer step.", ["stage"], registry=self.registry,
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
        ).labels(stage)  # fmt: skip
        self.checkpoint_seconds = Histogram(
            "llm_trainer_checkpoint_seconds", "Time to commit a checkpoint.", ["stage"], registry=self.registry,
            buckets=(0.5, 1, 5, 15, 60, 300, 900),
        ).labels(stage)  # fmt: skip
        self.skipped_steps = Counter(
            "llm_trainer_skipped_steps", "Steps left out because a gradient was not finite.", ["stage"],
            registry=self.registry,
        ).labels(stage)  # fmt: skip

    def show_expert_load(self, load: list[list[float]]) -> None:
        """`load`: [layer with experts][expert], counted from 0."""
        for layer, shares in enumerate(load):
            for expert, share in enumerate(shares):
                self.expert_load.labels(self.stage, str(layer), str(expert)).set(share)
