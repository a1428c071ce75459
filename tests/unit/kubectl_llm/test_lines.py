"""What the plugin writes: of statuses that the operator's own models make, so that a renamed field fails here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kubectl_llm import progress, top
from kubectl_llm.screen import PLAIN, Style, clean, duration
from kubectl_llm.status import failed, tree
from llm_operator.api.app import LLMAppStatus, ResolvedModel
from llm_operator.api.app_evaluation import AppEvaluationStatus, AppScore
from llm_operator.api.common import Condition, Status
from llm_operator.api.knowledge import KnowledgeStatus
from llm_operator.api.serving import AdapterStatus, LLMServingStatus, ServedResult, ServingStartup
from llm_operator.api.training_status import (
    AttemptStatus,
    Checkpoint,
    LLMTrainingStatus,
    NoticeStatus,
    ProgressStatus,
    Result,
    StageStatus,
    WorkerStatus,
)

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
Manifest = dict[str, Any]


def condition(kind: str, value: str, reason: str, message: str) -> Condition:
    return Condition(
        type=kind, status=value, reason=reason, message=message, last_transition_time="2026-01-01T11:00:00Z"
    )


def manifest(kind: str, name: str, spec: Manifest, status: Status | None) -> Manifest:
    told = {"status": status.model_dump(by_alias=True, exclude_none=True)} if status else {}
    return {"kind": kind, "metadata": {"name": name, "namespace": "team"}, "spec": spec, **told}


LIMITS = {"resources": {"limits": {"nvidia.com/gpu": 8, "memory": "1Ti"}}}
RUNNING = manifest(
    "LLMTraining",
    "chat",
    {**LIMITS, "stages": [{"name": "base"}, {"name": "tuned"}]},
    LLMTrainingStatus(
        phase="Running",
        stage="base",
        nodes=2,
        conditions=[
            condition("Accepted", "True", "Valid", "ok"),
            condition("Running", "True", "Running", "attempt 2 of base"),
        ],
        stages=[
            StageStatus(
                name="data",
                kind="prepareData",
                state="Succeeded",
                start_time="2026-01-01T11:00:00Z",
                end_time="2026-01-01T11:01:02Z",
                result=Result(uri="pvc://models/run/data", digest="sha256:" + "0" * 64, kind="data"),
            ),
            StageStatus(
                name="base",
                kind="pretrain",
                state="Running",
                start_time="2026-01-01T11:01:02Z",
                nodes=2,
                attempts=[
                    AttemptStatus(
                        number=1,
                        job="j-1",
                        start_time="2026-01-01T11:01:02Z",
                        end_time="2026-01-01T11:31:02Z",
                        fault="Infrastructure",
                        reason="NodeLost",
                        message="pod j-1-0 on node b: gone",
                    ),
                    AttemptStatus(number=2, job="j-2", start_time="2026-01-01T11:40:00Z"),
                ],
                workers=[
                    WorkerStatus(rank=0, processes=8, pod="j-2-0", node="a"),
                    WorkerStatus(rank=8, processes=8, pod="j-2-1", node="b"),
                ],
                progress=ProgressStatus(
                    phase="Training", step=206, steps=300, loss="5.3841", tokens_per_second=12_345, eta_seconds=190
                ),
                checkpoint=Checkpoint(step=200, uri="pvc://models/run/base/200", time="2026-01-01T11:55:00Z"),
                notices=[NoticeStatus(reason="CheckpointSetAside", message="step 150 was damaged")],
            ),
            StageStatus(name="tuned", kind="sft"),
        ],
    ),
)
WAITING = manifest(
    "LLMTraining",
    "later",
    {},
    LLMTrainingStatus(
        phase="Pending",
        stage="data",
        conditions=[
            condition("Running", "False", "Unschedulable", "0/2 nodes are available: insufficient nvidia.com/gpu")
        ],
    ),
)
SERVING = manifest(
    "LLMServing",
    "chat",
    {"replicas": 2, **LIMITS},
    LLMServingStatus(
        phase="Ready",
        url="http://chat-serving.team.svc/v1",
        replicas=2,
        ready_replicas=2,
        model=ServedResult(uri="pvc://models/run/base/result", step=300),
        startup=ServingStartup(pod="chat-1", fetch_seconds=8, import_seconds=11.5, load_seconds=2.25, total_seconds=20),
        adapters=[
            AdapterStatus(name="legal", state="Waiting", reason="StageNotDone", message="stage legal has no result yet")
        ],
        conditions=[condition("Ready", "True", "Serving", "all pods serve it")],
    ),
)


def test_a_training_is_a_tree_of_stages_attempts_and_pods() -> None:
    assert (
        "\n".join(tree(RUNNING, PLAIN, NOW).lines())
        == """\
training chat  Running
├─ data  Succeeded  1m2s
│  └─ result  pvc://models/run/data  step 0
├─ base  Running  [#############-------] 206/300 69%  loss 5.3841  12.3k tokens/s  ETA 3m10s
│  ├─ attempt 1  NodeLost  30m
│  │  └─ pod j-1-0 on node b: gone
│  ├─ attempt 2  under way  20m
│  │  ├─ rank 0  j-2-0  a
│  │  └─ rank 8  j-2-1  b
│  ├─ checkpoint  pvc://models/run/base/200  step 200
│  └─ CheckpointSetAside: step 150 was damaged
├─ tuned  Pending
└─ Running: attempt 2 of base"""
    )


def test_a_serving_tells_its_model_and_what_is_missing() -> None:
    assert (
        "\n".join(tree(SERVING, PLAIN, NOW).lines())
        == """\
serving chat  Ready  2/2 ready  http://chat-serving.team.svc/v1
├─ model  pvc://models/run/base/result  step 300
├─ started  in 20.0 s  fetched before in 8.0 s, imports 11.5 s, weights 2.2 s
├─ adapter legal  Waiting
│  └─ stage legal has no result yet
└─ Serving: all pods serve it"""
    )


APP = manifest(
    "LLMApp",
    "help",
    {"replicas": 2},
    LLMAppStatus(
        phase="HeldBack",
        url="http://help-app.team.svc/v1",
        replicas=2,
        ready_replicas=2,
        model=ResolvedModel(url="http://chat-serving.team.svc/v1", name="legal"),
        knowledge=[
            KnowledgeStatus(name="manual", reason="Indexed", message="all of it", documents=12, chunks=40),
            KnowledgeStatus(name="faq", reason="IndexFailed", message="pod x: a.pdf has no text"),
        ],
        evaluation=AppEvaluationStatus(
            revision="1",
            questions=20,
            scores=[AppScore(metric="contains", value=0.65, stderr=0.1, count=20)],
            report="pvc://models/report.jsonl",
            reason="ThresholdMissed",
            message="contains is 0.650 ± 0.100, and 0.7 is asked for",
        ),
        conditions=[condition("Ready", "True", "HeldBack", "the configuration before stays in use")],
    ),
)


def test_an_app_tells_its_knowledge_its_model_and_its_questions() -> None:
    assert (
        "\n".join(tree(APP, PLAIN, NOW).lines())
        == """\
app help  HeldBack  2/2 ready  http://help-app.team.svc/v1
├─ model  legal  http://chat-serving.team.svc/v1
├─ knowledge manual  Indexed  12 documents, 40 chunks
├─ knowledge faq  IndexFailed
│  └─ pod x: a.pdf has no text
├─ evaluation  ThresholdMissed  20 questions  contains 0.650
│  ├─ contains is 0.650 ± 0.100, and 0.7 is asked for
│  └─ report  pvc://models/report.jsonl
└─ HeldBack: the configuration before stays in use"""
    )


def test_a_line_for_each_training_and_why_one_waits() -> None:
    assert (
        "\n".join(progress.lines([WAITING, RUNNING], PLAIN))
        == """\
NAME    PHASE     STAGE   PROGRESS                         LOSS     TOKENS/S   ETA
chat    Running   base    [#############-------] 206/300   5.3841   12.3k      3m10s
later   Pending   data
  Unschedulable: 0/2 nodes are available: insufficient nvidia.com/gpu"""
    )


def test_what_is_held_and_what_comes_of_it() -> None:
    assert (
        "\n".join(top.lines([SERVING, RUNNING, WAITING, APP], with_namespace=False))
        == """\
KIND       NAME    PHASE      PODS   DEVICES             TOKENS/S   MFU
app        help    HeldBack   2      cpu
serving    chat    Ready      2      16 nvidia.com/gpu
training   chat    Running    2      16 nvidia.com/gpu   12.3k
training   later   Pending    0"""
    )


def test_a_status_of_another_version_is_shown_as_far_as_it_goes() -> None:
    """Absent, null, or of another type: never a traceback."""
    statuses: list[Any] = [
        None,
        {},
        {"phase": None, "stages": None, "conditions": None},
        {"stages": [{}]},
        {
            "stage": "a",
            "stages": [
                {
                    "name": "a",
                    "state": "Running",
                    "progress": {"steps": "x", "loss": None},
                    "attempts": [{"number": None}],
                    "checkpoint": None,
                    "result": {},
                }
            ],
        },
        {"conditions": ["x", {"type": "Failed"}], "adapters": [{}], "model": {}},
        {"knowledge": [{}, {"reason": None}], "evaluation": {"scores": [None, {}, {"value": "x"}]}},
    ]
    for status in statuses:
        for kind in ("LLMTraining", "LLMServing", "LLMApp"):
            one = {"kind": kind, "metadata": {"name": "x"}, "status": status}
            assert tree(one, PLAIN, NOW).lines()[0].split()[1] == "x"
            assert progress.lines([one], PLAIN)
            assert top.lines([one], with_namespace=True)
            assert not failed(one)


def test_what_a_pod_has_said_steers_no_terminal() -> None:
    spoiled = {
        "phase": "Failed",
        "conditions": [
            {"type": "Failed", "status": "True", "reason": "Own", "message": "\x1b[2Jgone\x07\u202e\nnew line"}
        ],
    }
    text = "".join(tree({"kind": "LLMTraining", "metadata": {"name": "x"}, "status": spoiled}, PLAIN, NOW).lines())
    assert clean(text) == text


def test_colours_are_of_states_alone() -> None:
    line = tree(RUNNING, Style(colour=True), NOW).lines()[1]
    assert line == "├─ data  \x1b[32mSucceeded\x1b[0m  1m2s"


def test_a_watch_keeps_what_is_there() -> None:
    seen = list(progress.followed([("ADDED", RUNNING), ("ADDED", WAITING), ("BOOKMARK", {}), ("DELETED", RUNNING)]))
    assert [[one["metadata"]["name"] for one in each] for each in seen] == [
        ["chat"],
        ["chat", "later"],
        ["chat", "later"],
        ["later"],
    ]


def test_durations_have_two_units() -> None:
    assert [duration(seconds) for seconds in (0, 59, 61, 3600, 90_061, -5)] == ["0s", "59s", "1m1s", "1h", "1d1h", "0s"]
