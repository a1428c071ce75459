"""Ranks ordered by where the pods are: another order of processes, the same training."""

from __future__ import annotations

import pytest

from tests.trainer.conftest import RunPods, Stage
from tests.trainer.pods import losses

BATCH = {"globalBatchSize": 6, "steps": 6}


def test_pods_of_a_zone_follow_one_another(pretrain: Stage, pods: RunPods) -> None:
    plain, ordered = (pretrain(name, nodes=3, **BATCH) for name in ("as-indexed", "by-zone"))
    pods(plain).run()
    placed = pods(ordered)
    placed.each = [{"LLM_TOPOLOGY": zone} for zone in ("a", "b", "a")]
    progress = placed.run()
    assert [(worker.rank, worker.node) for worker in progress.workers] == [(0, "node-0"), (1, "node-2"), (2, "node-1")]
    assert losses(ordered) == pytest.approx(losses(plain), rel=1e-5)
