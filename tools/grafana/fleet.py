"""All trainings, servings and apps: what there is, and how it goes."""

from __future__ import annotations

from tools.grafana.description import Dashboard, Query, Series, Variable, bars, series, shown

STAGE = ("namespace", "training", "stage")
everywhere = Series("")
ours = Series('namespace=~"$namespace"')
FLEET = Dashboard(
    "fleet",
    "llm-operator: all trainings, servings and apps",
    (Variable("namespace", "llm_trainer_step"),),
    (
        ("What there is", (
            bars("Trainings by phase", everywhere.by("sum", "llm_operator_llmtrainings", "phase")),
            bars("Servings by phase", everywhere.by("sum", "llm_operator_llmservings", "phase")),
            bars("Why trainings don't run", everywhere.by(
                "sum", "llm_operator_llmtraining_conditions", "reason", more='type="Running",status="False"')),
            bars("Apps by phase", everywhere.by("sum", "llm_operator_llmapps", "phase")),
            bars("Why servings aren't ready", everywhere.by(
                "sum", "llm_operator_llmserving_conditions", "reason", more='type="Ready",status="False"')),
            bars("Why apps aren't ready", everywhere.by(
                "sum", "llm_operator_llmapp_conditions", "reason", more='type="Ready",status="False"')),
        )),
        ("How it goes", (
            series(
                "Tokens a second", "short", ours.by("sum", "llm_trainer_tokens_per_second", *STAGE[:2]),
                stacked=True, width=12,
            ),
            series(
                "Share of the time in steps", "percentunit", ours.share("llm_trainer_step_seconds", *STAGE),
                told="The rest is evaluations, checkpoints, waiting for data and starts.", width=12,
            ),
            series(
                "Steps since the newest checkpoint", "short",
                Query(
                    f"max by ({', '.join(STAGE)}) ({ours.of('llm_trainer_step')} - llm_trainer_checkpoint_step)",
                    shown(STAGE),
                ),
                told="What a fault would cost.",
            ),
            series(
                "Wait for a place", "s", *everywhere.quantiles("llm_operator_llmtraining_queue_wait_seconds", 0.5, 0.9),
                told="Of trainings that got one: Pending until their pods had what they asked for.",
            ),
            series(
                "Trainings by what they spend their time on", "short",
                everywhere.rate("llm_operator_llmtraining_phase_seconds_total", "phase", over="10m"), stacked=True,
            ),
            series(
                "Restarts", "short", Query(
                    "sum by (fault) (increase(llm_operator_llmtraining_restarts_total{}[1h]))", "{{fault}}"),
                told="In an hour, by whose fault it was.",
            ),
            series(
                "Time that faults have cost", "s", Query(
                    "sum by (fault) (increase(llm_operator_llmtraining_lost_seconds_total{}[1h]))", "{{fault}}"),
                told="Since the newest checkpoint of each attempt that one ended, in an hour.",
            ),
            series(
                "GPUs", "short", everywhere.rate("llm_operator_llmtraining_gpu_seconds_total", "use", over="10m"),
                told="allocated: pods have them; training: steps are made; lost: steps that are made again.",
            ),
            series("Requests that run", "short", ours.by("sum", "vllm:num_requests_running", "namespace", "serving")),
            series("Requests that wait", "short", ours.by("sum", "vllm:num_requests_waiting", "namespace", "serving")),
        )),
        ("Around it", (
            series("Requests to apps", "reqps", ours.rate(
                "llm_app_requests_total", "namespace", "app", more='path=~"/v1/.*"')),
            series(
                "Lowest score of apps", "percentunit",
                everywhere.by("min", "llm_operator_llmapp_lowest_score", "metric"),
                told="Of each metric, in the newest evaluations.",
            ),
            series(
                "Knowledge that is outdated", "s",
                Query("max(llm_operator_llmapp_knowledge_outdated_seconds)", "longest"),
                told="For how long an app has answered by documents that are not the newest.",
            ),
            series("Results that were published", "short", Query(
                "sum by (result) (increase(llm_operator_llmtraining_publications_total{}[1h]))", "{{result}}"),
                told="In an hour, and those that could not be."),
            series(
                "Fetches that get nowhere", "s", Query("max(llm_operator_llmserving_fetch_idle_seconds)", "longest"),
                told="Since the last byte of a model that a serving fetches from a hub or a bucket.",
            ),
        )),
    ),
)  # fmt: skip
