"""PPO on two processes: a reward rises, ZeRO changes nothing, and a killed run goes on as if it had not been."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import StageConfig
from llm_trainer.protocol import ExitCode
from tests.trainer.conftest import RunPods, stage_config
from tests.trainer.online import LARGEST_KL, ONLINE, PYTHONPATH, assert_reward_rises, figures
from tests.trainer.pods import END_SECONDS, Pods, evaluations, losses

PPO = {
    **ONLINE,
    "epochs": 36,  # 28 steps
    "rolloutBatchSize": 64,
    "updateEpochs": 4,
    "criticOptimizer": {"learningRate": 0.002},
    "klCoefficient": 0.15,
    "targetKl": LARGEST_KL,
    "klHorizon": 2000,
}
SHORT = {"epochs": 4, "rolloutBatchSize": 32, "updateEpochs": 1, "checkpoint": {"everySteps": 2}}  # 6 steps
SEEN = {
    "reward", "reward_std", "kl", "kl_coefficient", "approx_kl", "entropy", "clip_ratio", "policy_loss", "value_loss",
    "explained_variance", "completions/mean_length", "completions/eos_rate", "seconds/generate", "seconds/score",
    "seconds/train", "updates",
}  # fmt: skip

Ppo = Callable[..., StageConfig]


@pytest.fixture
def ppo(prepared: Path, base: str, prompts: str) -> Ppo:
    """`ppo(stage, zeroStage=3, …)`: a stage on the prompts."""

    def make(stage: str, *, nodes: int = 2, attempt: int = 1, results: Any = None, **settings: Any) -> StageConfig:
        written = {**PPO, "dataset": {"uri": prompts, "validationFraction": 0.2}, **settings}
        return stage_config(
            prepared, stage, nodes=nodes, attempt=attempt, model={"uri": base}, results=results or {}, ppo=written
        )

    return make


@pytest.mark.parametrize(
    ("zero", "seed"),
    [pytest.param(1, 0, marks=pytest.mark.release), (2, 1), pytest.param(3, 2, marks=pytest.mark.release)],
)
def test_the_reward_rises(ppo: Ppo, pods: RunPods, zero: int, seed: int) -> None:
    config = ppo(f"ppo-{seed}", zeroStage=zero, seed=seed)
    pods(config, PYTHONPATH=PYTHONPATH).run()
    assert_reward_rises(config)
    divergence = figures(config, "kl")
    assert max(divergence.values()) < LARGEST_KL, divergence
    assert all(figures(config, name) for name in SEEN), f"missing of {SEEN}"


def test_zero_changes_nothing_and_neither_do_kills(ppo: Ppo, pods: RunPods) -> None:
    """ZeRO 0 and 3; then once killed in mid-rollout and once in mid-update."""
    whole = ppo("ppo-whole", zeroStage=3, **SHORT)
    pods(whole, PYTHONPATH=PYTHONPATH).run()
    plain = ppo("ppo-plain", zeroStage=0, **SHORT)
    pods(plain, PYTHONPATH=PYTHONPATH).run()
    same_run(plain, whole)
    for attempt, phase, step in ((1, "Generating", 2), (2, "Training", 4)):
        killed = pods(ppo("ppo-killed", attempt=attempt, zeroStage=3, **SHORT), PYTHONPATH=PYTHONPATH).start()
        kill_in(killed, phase, step)
    last = ppo("ppo-killed", attempt=3, zeroStage=3, **SHORT)
    pods(last, PYTHONPATH=PYTHONPATH).run()
    same_run(last, whole)


def same_run(config: StageConfig, expected: StageConfig) -> None:
    for name in ("reward", "kl", "value_loss", "approx_kl"):
        made, wanted = figures(config, name), figures(expected, name)
        assert sorted(made) == sorted(wanted)
        apart = {step: abs(made[step] - wanted[step]) for step in made}
        assert max(apart.values()) < 1e-4, f"{name}: {made} instead of {wanted}"
    apart = {step: abs(loss - losses(expected)[step]) for step, loss in losses(config).items()}
    assert max(apart.values()) < 1e-4, apart


def kill_in(pods: Pods, phase: str, step: int) -> None:
    """SIGKILL to rank 1 while rank 0 is in that phase of a step after the given one."""
    end = time.monotonic() + END_SECONDS
    while not ((told := pods.pods[0].progress()) and told.phase == phase and told.step >= step):
        ended = [pod for pod in pods.pods if not pod.process.is_alive()]
        assert not ended, f"a pod ended before it was seen {phase} after step {step}:\n{ended[0].log[-4000:]}"
        assert time.monotonic() < end, f"never seen {phase} after step {step}; the progress is {told}"
    os.kill(pods.pods[1].worker(), signal.SIGKILL)
    assert pods.wait()[0].exit_code == ExitCode.PEER_LOST


def test_a_reward_model_teaches_an_adapter(ppo: Ppo, pods: RunPods, prepared: Path, base: str, pairs: str) -> None:
    """The reward and the critic from a reward model, pretraining beside the updates, a warm-up of the critic."""
    taste = stage_config(
        prepared, "ppo-taste", nodes=1, model={"uri": base},
        rewardModel={"dataset": {"uri": pairs}, "maxLength": 64, "precision": "float32",
                     "optimizer": {"learningRate": 0.001}},
    )  # fmt: skip
    learned = pods(taste).run().result
    assert learned
    config = ppo(
        "ppo-taught", zeroStage=3, results={"taste": learned.uri}, **SHORT, rewards=[{"model": {"stage": "taste"}}],
        lora={"rank": 4}, ptx={"sequenceLength": 32}, criticWarmupSteps=2, missingEosPenalty=1.0, stopAtKl=0.5,
    )  # fmt: skip
    result = pods(config).run().result
    assert result
    assert (result.kind, result.base) == ("adapter", base)
    assert sorted(figures(config, "ptx_loss")) == [3, 4, 5, 6], "only the critic learns in the first two steps"
    assert set(evaluations(config)[6]) == {"reward", "eosRate"}
