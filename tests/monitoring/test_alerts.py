"""Each alert by promtool: it fires for what it is about, and all are quiet while everything goes well."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import yaml
from prometheus_client import CollectorRegistry

from llm_app.figures import Figures
from llm_app.tools.figures import ToolFigures
from llm_operator import objects
from llm_operator.kube.cache import Cache
from llm_trainer.runtime.progress import Board
from tests.cluster.settings import REPOSITORY

ALERTS = REPOSITORY / "charts" / "llm-operator" / "alerts.yaml"
RULES = {rule["alert"]: rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]}
Series = dict[str, str]  # values in promtool's short form: first, growth, how often

OPERATOR = 'namespace="llm-operator", job="llm-operator-metrics", pod="o-1"'
POD = 'namespace="team", training="chat", attempt="1", pod="p-0", stage="base"'
SERVER = 'namespace="team", serving="chat", pod="s-0", model_name="chat"'
APP = 'namespace="team", app="help", pod="a-0"'
CHAT, TOOL = f'{APP}, path="/v1/chat/completions"', f'{APP}, tool="search"'


def condition(kind: str, **labels: str) -> Series:
    told = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    return {f"llm_operator_{kind}_conditions{{{OPERATOR}, {told}}}": "1x600"}


# Ten hours, a sample a minute: a step takes 30 s, a checkpoint comes with every tenth.
NORMAL: Series = {
    f"llm_operator_leader{{{OPERATOR}}}": "1x600",
    f"llm_operator_leader{{{OPERATOR.replace('o-1', 'o-2')}}}": "0x600",
    f'llm_operator_watch_age_seconds{{{OPERATOR}, kind="Job"}}': "30x600",
    f'llm_operator_watch_refused{{{OPERATOR}, kind="Job"}}': "0x600",
    f'llm_operator_workqueue_oldest_seconds{{{OPERATOR}, controller="reconcile"}}': "0.2x600",
    f'llm_operator_reconcile_errors_total{{{OPERATOR}, controller="reconcile", kind="LLMTraining"}}': "3x600",
    f'llm_operator_api_requests_total{{{OPERATOR}, verb="GET", code="429"}}': "1x600",
    f'llm_operator_llmtraining_conditions{{{OPERATOR}, type="Running", status="True", reason="Running"}}': "5x600",
    f'llm_operator_llmtraining_conditions{{{OPERATOR}, type="Running", status="False", reason="Suspended"}}': "2x600",
    f'llm_operator_llmserving_conditions{{{OPERATOR}, type="Ready", status="True", reason="Ready"}}': "2x600",
    f'llm_operator_llmserving_conditions{{{OPERATOR}, type="Ready", status="False", reason="ScaledToZero"}}': "1x600",
    f"llm_trainer_last_step_timestamp_seconds{{{POD}}}": "0+60x600",
    f"llm_trainer_step_seconds_sum{{{POD}}}": "0+50x600",
    f"llm_trainer_step_seconds_count{{{POD}}}": "0+2x600",
    f"llm_trainer_step{{{POD}}}": "0+2x600",
    f"llm_trainer_checkpoint_step{{{POD}}}": "0+2x600",
    f"llm_trainer_loss{{{POD}}}": "5-0.005x600",
    f"llm_trainer_skipped_steps_total{{{POD}}}": "1x600",
    f'llm_trainer_step_part_seconds_total{{{POD}, rank="0", part="data"}}': "0+3x600",
    f'llm_trainer_step_part_seconds_total{{{POD}, rank="0", part="compute"}}': "0+45x600",
    f"llm_trainer_heartbeat_age_seconds{{{POD}}}": "12x600",
    f"vllm:num_requests_waiting{{{SERVER}}}": "2x600",
    f"vllm:num_requests_running{{{SERVER}}}": "8x600",
    f"vllm:generation_tokens_total{{{SERVER}}}": "0+9000x600",
    f"vllm:request_queue_time_seconds_sum{{{SERVER}}}": "0+10x600",
    f"vllm:request_queue_time_seconds_count{{{SERVER}}}": "0+60x600",
    f"vllm:kv_cache_usage_perc{{{SERVER}}}": "0.6x600",
    f'http_requests_total{{{SERVER}, status="2xx"}}': "0+60x600",
    f'http_requests_total{{{SERVER}, status="5xx"}}': "1x600",
    **condition("llmtraining", type="Published", status="False", reason="Publishing"),
    **condition("llmserving", type="ModelAvailable", status="False", reason="Fetching"),
    **condition("llmapp", type="Ready", status="False", reason="ScaledToZero"),
    **condition("llmapp", type="KnowledgeReady", status="False", reason="Indexing"),
    **condition("llmapp", type="Evaluated", status="False", reason="Evaluating"),
    f"llm_operator_llmserving_fetch_idle_seconds{{{OPERATOR}}}": "20x600",
    f"llm_operator_llmapp_knowledge_outdated_seconds{{{OPERATOR}}}": "600x600",
    f"llm_app_running_requests{{{APP}}}": "3x600",
    f"llm_app_answer_seconds_count{{{APP}}}": "0+60x600",
    f"llm_app_first_piece_seconds_count{{{APP}}}": "0+60x600",
    f'llm_app_requests_total{{{CHAT}, status="200"}}': "0+60x600",
    f'llm_app_requests_total{{{CHAT}, status="429"}}': "0+1x600",
    f'llm_app_requests_total{{{CHAT}, status="502"}}': "0+1x600",
    f'llm_app_requests_total{{{APP}, path="/ready", status="200"}}': "0+6x600",
    f"llm_app_broken_answers_total{{{APP}}}": "0+1x600",
    f'llm_app_searched_less_total{{{APP}, knowledge="manual"}}': "0+1x600",
    f"llm_app_retrieval_seconds_count{{{APP}}}": "0+60x600",
    f'llm_app_tool_calls_total{{{TOOL}, outcome="answered"}}': "0+60x600",
    f'llm_app_tool_calls_total{{{TOOL}, outcome="invalid"}}': "0+60x600",
    f'llm_app_tool_calls_total{{{TOOL}, outcome="failed"}}': "0+6x600",
}

# What is otherwise than in a normal run, by the beginning of a series' name. None: the series is not there.
FAULTS: dict[str, dict[str, str | None]] = {
    "LLMOperatorDown": {"llm_operator_leader": None},
    "LLMOperatorNoLeader": {"llm_operator_leader": "0x600"},
    "LLMOperatorWatchStale": {"llm_operator_watch_age_seconds": "700x600"},
    "LLMOperatorNamespaceRefused": {"llm_operator_watch_refused": "1x600"},
    "LLMOperatorQueueOld": {"llm_operator_workqueue_oldest_seconds": "100x600"},
    "LLMOperatorReconcileErrors": {"llm_operator_reconcile_errors_total": "0+1x600"},
    "LLMOperatorThrottled": {"llm_operator_api_requests_total": "0+60x600"},
    "LLMTrainingsWait": {**condition("llmtraining", type="Running", status="False", reason="Unschedulable")},
    "LLMTrainingsLastRestart": {f'llm_operator_llmtrainings_last_restart{{{OPERATOR}, fault="Own"}}': "1x600"},
    "LLMTrainingStalled": {
        "llm_trainer_last_step_timestamp_seconds": "0+60x570 34200x30",
        "llm_trainer_step_seconds_sum": "0+50x570 28500x30",
        "llm_trainer_step_seconds_count": "0+2x570 1140x30",
    },
    "LLMTrainingNotFinite": {"llm_trainer_loss": " ".join(["NaN"] * 600)},
    "LLMTrainingDiverges": {"llm_trainer_loss": "2x570 9x30"},
    "LLMTrainingCheckpointOld": {"llm_trainer_checkpoint_step": "0+2x300 600x300"},
    "LLMTrainingGoodputLow": {"llm_trainer_step_seconds_sum": "0+20x600"},
    "LLMTrainingWaitsForData": {
        f'llm_trainer_step_part_seconds_total{{{POD}, rank="0", part="data"}}': "0+30x600",
    },
    "LLMTrainingSilent": {"llm_trainer_heartbeat_age_seconds": "900x600"},
    "LLMServingStuck": {"vllm:num_requests_running": "0x600"},
    "LLMServingNoTokens": {"vllm:generation_tokens_total": "500x600"},
    "LLMServingQueueLong": {"vllm:request_queue_time_seconds_sum": "0+6000x600"},
    "LLMServingErrors": {f'http_requests_total{{{SERVER}, status="5xx"}}': "0+10x600"},
    "LLMServingCacheFull": {"vllm:kv_cache_usage_perc": "0.99x600"},
    "LLMServingRolloutStuck": {**condition("llmserving", type="Progressing", status="False", reason="RolloutStuck")},
    "LLMServingsNotReady": {**condition("llmserving", type="Ready", status="False", reason="NotReady")},
    "LLMServingAdapterMissing": {
        **condition("llmserving", type="AdaptersAvailable", status="False", reason="BaseDiffers")
    },
    "LLMTrainingPublishFailed": {**condition("llmtraining", type="Published", status="False", reason="PublishFailed")},
    "LLMServingFetchFailed": {**condition("llmserving", type="ModelAvailable", status="False", reason="FetchFailed")},
    "LLMServingFetchStuck": {"llm_operator_llmserving_fetch_idle_seconds": "1200x600"},
    "LLMAppStuck": {"llm_app_answer_seconds_count": "60x600", "llm_app_first_piece_seconds_count": "60x600"},
    "LLMAppErrors": {f'llm_app_requests_total{{{CHAT}, status="502"}}': "0+6x600"},
    "LLMAppRefuses": {f'llm_app_requests_total{{{CHAT}, status="429"}}': "0+10x600"},
    "LLMAppSearchesLess": {"llm_app_searched_less_total": "0+30x600"},
    "LLMAppToolErrors": {f'llm_app_tool_calls_total{{{TOOL}, outcome="failed"}}': "0+30x600"},
    "LLMAppsNotReady": {**condition("llmapp", type="Ready", status="False", reason="NotReady")},
    "LLMAppsIndexFails": {**condition("llmapp", type="KnowledgeReady", status="False", reason="IndexFailed")},
    "LLMAppsKnowledgeOld": {"llm_operator_llmapp_knowledge_outdated_seconds": "30000x600"},
    "LLMAppsBelowGate": {**condition("llmapp", type="Evaluated", status="False", reason="ThresholdMissed")},
}
BROKEN: dict[str, str | None] = {f'llm_app_requests_total{{{CHAT}, status="502"}}': None, "llm_app_broken": "0+6x600"}
SKIPPED = {f"llm_trainer_skipped_steps_total{{{POD}}}": "0+1x600"}


def with_fault(fault: dict[str, str | None]) -> Series:
    found = dict(NORMAL)
    for name, values in fault.items():
        same = [series for series in found if series.startswith(name)] or [name]
        for series in same:
            if values is None:
                del found[series]
            else:
                found[series] = values
    return found


def fired(prometheus: Path, folder: Path, series: Series) -> set[str]:
    """Alerts that fire at the end of ten hours: promtool tells what a wrong expectation found."""
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)', "eval_time": "590m",
             "exp_samples": [{"labels": "{}", "value": 0}]}
            for name in RULES
        ],
    }  # fmt: skip
    file = folder / "test.yaml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "5m", "tests": [test]}))
    done = subprocess.run([prometheus / "promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    assert ("SUCCESS" in text) == (done.returncode == 0), text
    assert "parse error" not in text, text
    return set(re.findall(r'expr: "count\(ALERTS\{alertname=\\"(\w+)\\"', text))


def test_a_normal_run_is_quiet(prometheus: Path, tmp_path: Path) -> None:
    assert fired(prometheus, tmp_path, NORMAL) == set()


@pytest.mark.parametrize("alert", RULES)
def test_it_fires(prometheus: Path, tmp_path: Path, alert: str) -> None:
    """And nothing else does: one fault, one alert."""
    assert fired(prometheus, tmp_path, with_fault(FAULTS[alert])) == {alert}


def test_skipped_steps_are_told_too(prometheus: Path, tmp_path: Path) -> None:
    assert fired(prometheus, tmp_path, with_fault(dict(SKIPPED))) == {"LLMTrainingNotFinite"}


def test_answers_that_break_off_are_errors_of_an_app(prometheus: Path, tmp_path: Path) -> None:
    """Where no request has ended with 5xx, which then is no series at all."""
    assert fired(prometheus, tmp_path, with_fault(BROKEN)) == {"LLMAppErrors"}


def test_a_stage_that_has_made_no_step_yet_is_not_stalled(prometheus: Path, tmp_path: Path) -> None:
    first = {name: "0x600" for name in NORMAL if name.startswith("llm_trainer_") and "loss" not in name}
    assert fired(prometheus, tmp_path, with_fault(dict(first))) == set()


def names(registry: Any) -> set[str]:
    """Of all series, as Prometheus scrapes them."""
    found = set()
    for family in registry.collect():
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        found |= {family.name + ending for ending in endings}
    return found


OURS = re.compile(r"\b(?:llm_operator|llm_trainer|llm_app)_\w+")


def told_by_ours() -> set[str]:
    """Of the operator, a training pod and an app's pod with agents."""
    counted, app = CollectorRegistry(), Figures().registry
    for collector in objects.counts(Cache()):
        counted.register(collector)
    ToolFigures(app)
    registries = (prometheus_client.REGISTRY, counted, Board("base", 1).metrics.registry, app)
    return {name for registry in registries for name in names(registry)}


def test_what_an_alert_asks_for_is_there() -> None:
    """vLLM's own names are asked of the running engine, in tests/e2e/test_serving_image.py."""
    known = told_by_ours()
    asked = set(OURS.findall(" ".join(rule["expr"] for rule in RULES.values())))
    assert not asked - known, f"nobody tells {sorted(asked - known)}"


def test_each_has_a_page() -> None:
    page = (REPOSITORY / "docs" / "alerts.md").read_text()
    missing = [name for name in RULES if f"## {name}\n" not in page]
    assert not missing, f"docs/alerts.md has nothing on {missing}"
    left = [name for name in re.findall(r"^## (LLM\w+)$", page, re.MULTILINE) if name not in RULES]
    assert not left, f"docs/alerts.md is about {left}, which are no alerts"
