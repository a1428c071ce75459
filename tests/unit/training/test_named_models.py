"""Which models' folders data preparation is told to open."""

from __future__ import annotations

from llm_operator.api.training import LLMTrainingSpec
from llm_operator.training.stages import prepare_data
from tests.specs import REMOVE, TASTE, TRAINING, changed, ppo


def test_every_model_that_a_user_names() -> None:
    policy = ppo(rewards=[{"model": {"stage": "taste"}}, {"model": {"uri": "pvc://hub/reward"}}],
                 critic={"uri": "pvc://hub/critic"})  # fmt: skip
    spec = changed(
        TRAINING,
        model={"uri": "pvc://hub/base"},
        tokenizer=REMOVE,
        stages=[{**TASTE, "model": {"uri": "pvc://hub/other"}}, {**policy, "model": {"uri": "pvc://hub/policy"}}],
    )
    made = prepare_data(LLMTrainingSpec.model_validate(spec)).models
    assert [(check.field, check.stage, check.uri) for check in made] == [
        ("spec.model.uri", "", "pvc://hub/base"),
        ("spec.stages[0].model.uri", "taste", "pvc://hub/other"),
        ("spec.stages[1].model.uri", "aligned", "pvc://hub/policy"),
        ("spec.stages[1].ppo.rewards[1].model.uri", "aligned", "pvc://hub/reward"),
        ("spec.stages[1].ppo.critic.uri", "aligned", "pvc://hub/critic"),
    ]
    assert [check.scores for check in made] == [False, False, False, True, True]
    assert [(check.length, check.length_field) for check in made] == [
        (0, ""),
        (128, "spec.stages[0].rewardModel.maxLength"),
        (128, "spec.stages[1].ppo.maxCompletionLength"),
        (0, ""),
        (0, ""),
    ]
    assert prepare_data(LLMTrainingSpec.model_validate(TRAINING)).models == []
