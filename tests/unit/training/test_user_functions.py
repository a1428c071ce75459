"""Which functions of the user's data preparation is told to try, and how a stage would call them."""

from __future__ import annotations

from llm_operator.api.training import LLMTrainingSpec
from llm_operator.training.stages import prepare_data
from tests.specs import TRAINING, changed, online, ppo


def test_every_function_that_a_user_names() -> None:
    spec = changed(
        TRAINING,
        model__architecture__function="mine:model",
        stages__0__pretrain__lossFunction="mine:loss",
        stages__0__optimizer={"function": "mine:pretrain", "beta1": 0.8},
        stages__1__sft__lossFunction="mine:other_loss",
        stages__2=online(rewards=[{"function": "mine:reward"}]),
        stages__3={
            **ppo(rewards=[{"function": "mine:reward"}], criticOptimizer={"function": "mine:critic", "epsilon": 1e-6}),
            "name": "last",
            "optimizer": {"function": "mine:policy"},
        },
    )
    made = prepare_data(LLMTrainingSpec.model_validate(spec))
    assert [(check.field, check.function, check.use) for check in made.functions] == [
        ("spec.stages[0].optimizer.function", "mine:pretrain", "optimizer"),
        ("spec.stages[0].pretrain.lossFunction", "mine:loss", "loss"),
        ("spec.stages[1].sft.lossFunction", "mine:other_loss", "loss"),
        ("spec.stages[2].grpo.rewards[0].function", "mine:reward", "reward"),
        ("spec.stages[3].optimizer.function", "mine:policy", "optimizer"),
        ("spec.stages[3].ppo.rewards[0].function", "mine:reward", "reward"),
        ("spec.stages[3].ppo.criticOptimizer.function", "mine:critic", "optimizer"),
    ]
    pretrain, _, _, _, policy, _, critic = (check.optimizer for check in made.functions)
    assert pretrain
    assert policy
    assert critic
    assert (pretrain.beta1, pretrain.beta2, pretrain.learning_rate) == (0.8, 0.95, TRAINING_RATE)
    assert policy.learning_rate == 1e-6
    assert (critic.learning_rate, critic.epsilon) == (9e-6, 1e-6)
    assert made.architecture
    assert made.architecture.function == "mine:model"


TRAINING_RATE = 3e-4  # the default: the optimizer above has none


def test_whether_zero_gives_it_flat_parts() -> None:
    def flat(**stage: object) -> bool:
        settings = {f"stages__1__{name}": value for name, value in stage.items() if name != "resources"}
        spec = changed(TRAINING, stages__1__optimizer={"function": "mine:make"}, **settings)
        if "resources" in stage:
            spec = changed(spec, resources=stage["resources"])
        (check,) = prepare_data(LLMTrainingSpec.model_validate(spec)).functions
        return check.flat

    gpus = {"limits": {"nvidia.com/gpu": 1}}
    assert flat()
    assert flat(zeroStage=3)
    assert not flat(zeroStage=0)
    assert flat(zeroStage=0, resources=gpus), "weights in bfloat16 are never without ZeRO"
    assert not flat(zeroStage=0, precision="float32", resources=gpus)
