from demo.report import curves_of
from demo.results import change_of


def test_a_stage_is_drawn_by_its_reward_if_it_has_one() -> None:
    rows = [
        {"step": 0, "evaluation": {"reward": -1.0, "eosRate": 0.5}},
        {"step": 1, "loss": 0.1, "figures": {"reward": -0.5}},
        {"step": 2, "loss": 0.2, "figures": {"reward": 0.5}},
    ]
    assert curves_of(rows) == ("reward", [(1, -0.5), (2, 0.5)], [(0, -1.0)])
    assert curves_of([{"step": 1, "loss": 2.0}, {"step": 1, "evaluation": {"loss": 3.0}}]) == (
        "loss", [(1, 2.0)], [(1, 3.0)],
    )  # fmt: skip


def test_figures_before_and_after() -> None:
    assert change_of([{"accuracy": 0.5}, {"accuracy": 0.9}]) == "accuracy 0.500 → 0.900"
    assert change_of([{"loss": 4.0, "baseLoss": 5.0}]) == "loss 5.000 → 4.000"
