"""Functions of the user's are tried before any GPU is taken: what is wrong with one is told with its field."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from llm_trainer.config import FunctionCheck, ResolvedOptimizer
from llm_trainer.models.loss_function import loss_function
from llm_trainer.models.model_function import make_model
from llm_trainer.models.optimizer_function import optimizer_maker
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.functions import call, digest_of_function, load_function
from llm_trainer.stages.fingerprints import changed_functions
from llm_trainer.stages.prepare_checks import check_function

MODULE = "tests.trainer.user_functions"
FIELD = "spec.stages[1].sft.lossFunction"
RIGHT_OPTIMIZERS = [
    *(f"torch.optim:{name}" for name in ("AdamW", "NAdam", "RAdam", "Adamax")),
    *(f"{MODULE}:{name}" for name in ("sgd", "two_rates", "Bare")),
]


@pytest.mark.parametrize("name", ["nats", "with_z_loss"])
def test_losses_that_can_be_learned_from(name: str) -> None:
    check_function(FunctionCheck(field=FIELD, function=f"{MODULE}:{name}", use="loss"))


@pytest.mark.parametrize(
    ("name", "says"),
    [("mean", "pays no heed to num_items_in_batch"), ("nan_loss", "gave nan for finite logits"),
     ("numpy_loss", "gave a float; it must return a tensor"), ("detached", "gave a number without a gradient"),
     ("by_token", r"gave a tensor of \[2, 8\]"), ("all_labels", "raised RuntimeError"),
     ("ignores_logits", "gives no gradient to outputs.logits"), ("two_arguments", "name a function .outputs, labels"),
     ("missing", "has no 'missing'")],
)  # fmt: skip
def test_losses_that_can_not(name: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as error:
        loss_function(f"{MODULE}:{name}", FIELD)
    assert str(error.value).startswith(f"{FIELD}: ")
    assert name in str(error.value)


@pytest.mark.parametrize("flat", [False, True], ids=["whole", "ZeRO"])
@pytest.mark.parametrize("name", RIGHT_OPTIMIZERS)
def test_optimizers_that_learn(name: str, flat: bool) -> None:
    settings = ResolvedOptimizer()
    check_function(FunctionCheck(field=FIELD, function=name, use="optimizer", optimizer=settings, flat=flat))


@pytest.mark.parametrize(
    ("name", "says"),
    [("first_group", "of 2 of the 3 parameters"), ("no_optimizer", "gave a str; it must return a torch.optim.Optim"),
     ("raises", "raised KeyError: 'beta3'"), ("without_rate", "a group whose lr is None"), ("Still", "makes no step"),
     ("Noisy", "makes other steps from the same gradients"), ("Fixed", "use group\\['lr'\\]"),
     ("Forgetful", "its state_dict\\(\\) doesn't have"), ("Infinite", "not finite from small gradients"),
     ("Pickled", "a state that a checkpoint can't give back")],
)  # fmt: skip
@pytest.mark.parametrize("flat", [False, True], ids=["whole", "ZeRO"])
def test_optimizers_that_do_not(name: str, says: str, flat: bool) -> None:
    with pytest.raises(ConfigurationError, match=says) as error:
        optimizer_maker(f"{MODULE}:{name}", ResolvedOptimizer(), FIELD, flat=flat)
    assert str(error.value).startswith(f"{FIELD}: ")


@pytest.mark.parametrize(("name", "says"), [("Normalised", "set zeroStage: 0"), ("Early", "raised KeyError")])
def test_optimizers_that_need_whole_parameters(name: str, says: str) -> None:
    function, settings = f"{MODULE}:{name}", ResolvedOptimizer()
    optimizer_maker(function, settings, FIELD, flat=False)
    with pytest.raises(ConfigurationError, match=says):
        optimizer_maker(function, settings, FIELD, flat=True)


@pytest.mark.parametrize("rate", [1e-12, 1e3])
def test_a_rate_that_is_far_from_usual(rate: float) -> None:
    optimizer_maker("torch.optim:AdamW", ResolvedOptimizer(learning_rate=rate), FIELD, flat=True)


def test_trying_a_function_draws_nothing_from_the_stages_chance() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    optimizer_maker("torch.optim:AdamW", ResolvedOptimizer(), FIELD, flat=True)
    loss_function(f"{MODULE}:nats", FIELD)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [("def f(:", "its module raised SyntaxError"), ("1 / 0", "its module raised ZeroDivisionError"),
     ("import sys; sys.exit(3)", "its module raised SystemExit: 3"), ("import no_such", "No module named 'no_such'"),
     ("import os; os.no_such", "its module raised AttributeError"), ("f = 3", "is a int and no function")],
)  # fmt: skip
def test_modules_that_can_not_be_imported(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_module.py").write_text(text)
    importlib.invalidate_caches()
    sys.modules.pop("broken_module", None)
    with pytest.raises(ConfigurationError, match=says) as error:
        load_function("broken_module:f", FIELD)
    assert str(error.value).startswith(f"{FIELD}: ")
    sys.modules.pop("broken_module", None)


def test_a_changed_source_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "changing_module.py"
    file.write_text("def f(**_): return 1\n")
    importlib.invalidate_caches()
    load_function("changing_module:f", FIELD)
    before = digest_of_function("changing_module:f")
    assert before == digest_of_function("changing_module:f")
    file.write_text("def f(**_): return 2\n")
    now = digest_of_function("changing_module:f")
    assert before
    assert now
    told = list(changed_functions({FIELD: before, "gone": "a"}, {FIELD: now}, "step-00000005"))
    assert len(told) == 1
    assert FIELD in told[0]
    assert "step-00000005" in told[0]
    assert not list(changed_functions({FIELD: now}, {FIELD: now}, "step-00000005"))
    sys.modules.pop("changing_module")


def test_memory_and_lost_processes_are_no_fault_of_the_function() -> None:
    def needs_more() -> None:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        call(needs_more, "a:b", FIELD)


def code_of(page: str) -> str:
    """The first block of Python of a how-to."""
    text = (Path(__file__).parents[3] / "docs/howto" / page).read_text()
    return text.partition("```python\n")[2].partition("```")[0]


def test_the_how_tos_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for kind in ("loss", "optimizer", "model"):
        (tmp_path / f"howto_{kind}.py").write_text(code_of(f"{kind}-function.md"))
    importlib.invalidate_caches()
    loss_function("howto_loss:with_z_loss", FIELD)
    optimizer_maker("howto_optimizer:slow_vectors", ResolvedOptimizer(), FIELD, flat=True)
    config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=8, num_attention_heads=2)
    model = make_model("howto_model:small_outputs", config, None, "eager")
    deviation = model.get_submodule("model.layers.0.self_attn.o_proj").weight.std()
    assert float(deviation.detach()) == pytest.approx(0.02 / 4, rel=0.3)
