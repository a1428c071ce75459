"""One training."""

from __future__ import annotations

from tools.grafana.description import RATE, Dashboard, Panel, Query, Series, Variable, number, series

its = Series('namespace=~"$namespace",training=~"$training"')


def newest(metric: str) -> str:
    """Of each stage that tells it now."""
    return f"max by (stage) ({its.of(metric)})"


TRAINING = Dashboard(
    "training",
    "llm-operator: one training",
    (Variable("namespace", "llm_trainer_step"), Variable("training", "llm_trainer_step", several=False)),
    (
        ("Does it go", (
            number("Step", newest("llm_trainer_step")),
            number("Tokens", newest("llm_trainer_tokens_total")),
            number("Loss", newest("llm_trainer_loss")),
            number("Tokens a second", newest("llm_trainer_tokens_per_second")),
            number("Since the last step", f"time() - ({newest('llm_trainer_last_step_timestamp_seconds')} > 0)", "s"),
            number("Steps left out", newest("llm_trainer_skipped_steps_total")),
            Panel(
                "Stages and attempts",
                (Query(f"max by (stage, attempt) ({its.of('llm_trainer_step')} * 0 + 1)", "{{stage}} {{attempt}}"),),
                kind="state-timeline", width=24,
            ),
        )),
        ("How well it learns", (
            series("Loss", "short", its.by("max", "llm_trainer_loss", "stage")),
            series("Held out", "short", its.by("max", "llm_trainer_evaluation", "stage", "name")),
            series(
                "Other figures", "short", its.by("max", "llm_trainer_figures", "stage", "name"),
                told="Of preferences and of reinforcement learning: reward, KL, entropy, lengths.",
            ),
            series("Learning rate", "sci", its.by("max", "llm_trainer_learning_rate", "stage")),
            series("Gradient norm", "short", its.by("max", "llm_trainer_gradient_norm", "stage")),
            series("Most loaded expert", "percentunit", its.by("max", "llm_trainer_expert_load", "stage", "layer")),
            series(
                "Tokens read, by source", "short", its.by("max", "llm_trainer_read_tokens", "stage", "source"),
                told="Of pretrain, against what its mixture asks for: llm_trainer_asked_share.", stacked=True,
            ),
            series("Epochs, by source", "short", its.by("max", "llm_trainer_source_epochs", "stage", "source")),
        )),
        ("How fast", (
            series("Tokens a second", "short", its.by("max", "llm_trainer_tokens_per_second", "stage")),
            series("Time of a step", "s", its.mean("llm_trainer_step_seconds", "stage")),
            series("Share of the time in steps", "percentunit", its.share("llm_trainer_step_seconds", "stage")),
            series("Time of a checkpoint", "s", its.mean("llm_trainer_checkpoint_seconds", "stage", over="1h")),
            series("Peak of GPU memory", "bytes", its.by("max", "llm_trainer_gpu_memory_peak_bytes", "stage", "rank")),
            series("Start, by part", "s", its.by("max", "llm_trainer_start_seconds", "stage", "part"), stacked=True),
        )),
        ("Where the time goes", (
            series(
                "Time by what it goes into", "percentunit",
                Query(f"max by (stage, phase) (rate({its.of('llm_trainer_phase_seconds_total')}[{RATE}]))",
                      "{{stage}} {{phase}}"),
                told="Training, Generating and Scoring are steps; the rest is around them.", stacked=True,
            ),
            series(
                "Parts of a step", "percentunit",
                Query(f"avg by (stage, part) (rate({its.of('llm_trainer_step_part_seconds_total')}[{RATE}]))",
                      "{{stage}} {{part}}"),
                told="Mean of the processes. data: a process waits for rows; agree: for the other processes.",
                stacked=True,
            ),
            series("Goodput", "percentunit", its.by("max", "llm_trainer_goodput", "stage", "attempt"),
                   told="Of an attempt's time so far."),
            series("RAM of a process", "bytes", its.by("max", "llm_trainer_memory_bytes", "stage", "rank")),
            series("Since the last sign of life", "s", its.by("max", "llm_trainer_heartbeat_age_seconds", "stage")),
            series("Work that is made again", "s", its.by("max", "llm_trainer_lost_seconds", "stage", "attempt")),
        )),
    ),
    {"an attempt begins": "max by (stage, attempt) ({0} unless {0} offset 1m)".format(
        its.of("llm_trainer_start_seconds"))},
)  # fmt: skip
