"""Which models a process of a stage holds."""

from __future__ import annotations

from dataclasses import replace

from llm_operator.api.memory import HeldModel, StageMemory, stage_memory, training_size
from llm_operator.api.validation import load_training
from tests.specs import GPUS, PAIRS, TASTE, TRAINING, changed, ppo

LORA = {"name": "direct", "dpo": PAIRS, "model": {"stage": "chat"}, "lora": {"rank": 8}, "globalBatchSize": 16}
CHAIN = changed(
    TRAINING,
    resources=GPUS,
    stages__0__globalBatchSize=16,
    stages__1__globalBatchSize=16,
    stages__2=changed(TASTE, globalBatchSize=16),
    stages__3=changed(LORA),
    stages__4=ppo(globalBatchSize=16),
)


def test_the_networks_of_a_chain() -> None:
    spec = load_training(CHAIN)
    size = training_size(spec)
    assert size
    policy, scorer = HeldModel(size.total, 0, learns=True), HeldModel(size.scoring, 0, learns=True)
    held = [memory.models for index in range(5) if (memory := stage_memory(spec, index))]
    assert held == [
        (policy,),
        (policy,),
        (scorer,),
        (replace(policy, learns=False),),  # a low-rank adapter
        (policy, scorer, replace(policy, learns=False), replace(scorer, learns=False)),
    ]
    frozen = stage_memory(spec, 3)
    assert frozen
    assert frozen.per_process == 2 * size.total, "bfloat16 weights, whole under ZeRO 1"


def test_a_model_of_unknown_size() -> None:
    spec = load_training(changed(CHAIN, stages__4__ppo__rewards__0={"model": {"uri": "pvc://models/judge"}}))
    assert stage_memory(spec, 3)
    assert stage_memory(spec, 4) is None


def test_experts_are_spread_before_zero_spreads() -> None:
    """10 parameters, 8 of them in experts on 4 of 8 processes: 2 + 2 are on each."""
    model = HeldModel(10, routed=8, learns=True)
    memory = StageMemory((model,), 2, 2, 12, zero_stage=1, processes=8, expert_parallel=4)
    assert memory.per_process == 12 * 10 / 8 + 4 * (2 + 2)
