"""Data preparation in its pod: it reads every row of every stage, by the tokenizer that the stage will have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import Grpo, RewardModel, StageConfig
from llm_trainer.config.attempt import DatasetCheck
from llm_trainer.data.manifest import TOKENIZER
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.protocol import ExitCode
from llm_trainer.runtime.errors import DataError
from llm_trainer.runtime.progress import Board
from llm_trainer.stages.fine_tuning import rows_of
from llm_trainer.stages.prompts import prompt_rows
from tests.trainer.conftest import RunPods, stage_config
from tests.unit.trainer_data.templates import tokenizer_of

DATASET = {"uri": "pvc://corpus/given.jsonl", "validationFraction": 0.0}
TOOL = {
    "messages": [
        {"role": "user", "content": "q"},
        {"role": "tool", "content": "x"},
        {"role": "assistant", "content": "a"},
    ]
}
RIGHT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def write(volumes: Path, rows: list[Any]) -> None:
    (volumes / "corpus/given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def preparation(volumes: Path, check: dict[str, Any], run: str = "run-rows") -> StageConfig:
    settings = {
        "tokenizer": {"uri": f"pvc://models/run/data/{TOKENIZER}"},
        "datasets": [{"uri": DATASET["uri"], "anyOfColumns": [["messages"]], "assistantOnlyLoss": True, **check}],
    }
    config = stage_config(volumes, "data", nodes=1, prepareData=settings)
    return config.model_copy(update={"run_uri": f"pvc://models/{run}"})


def test_what_the_template_refuses_is_found_before_gpus(prepared: Path, pods: RunPods) -> None:
    write(prepared, [RIGHT, TOOL])
    words = pods(preparation(prepared, {"field": "spec.stages[0].sft.dataset.uri"})).start().wait()
    assert words[0].exit_code == ExitCode.DATA, words
    assert "spec.stages[0].sft.dataset.uri: pvc://corpus/given.jsonl, line 2" in words[0].message
    assert "role must be system, user or assistant, not tool" in words[0].message


def test_rows_are_read_by_the_tokenizer_of_the_stage(prepared: Path, pods: RunPods) -> None:
    """Of a model that the stage starts from; what a user should look at is a notice."""
    write(prepared, [{**RIGHT, "id": 1}])
    tokenizer_of("mistral").save_pretrained(prepared / "models/other")
    check = {"field": "f", "trainingTokenizer": False, "modelUri": "pvc://models/other"}
    progress = pods(preparation(prepared, check, "run-other")).run()
    assert [notice.reason for notice in progress.notices] == ["ColumnsUnread"]
    write(prepared, [{"messages": [{"role": "assistant", "content": "Hello"}, *RIGHT["messages"]]}])
    words = pods(preparation(prepared, check, "run-first")).start().wait()
    assert words[0].exit_code == ExitCode.DATA, words
    assert (
        "line 1: the tokenizer's chat template refuses the conversation (assistant, user, assistant)"
        in words[0].message
    )


def stage(volumes: Path, **kind: Any) -> StageConfig:
    return stage_config(volumes, "given", nodes=1, model={"uri": "pvc://models/run/data"}, **kind)


def test_a_column_lives_if_any_row_has_it(prepared: Path) -> None:
    tokenizer = load_tokenizer(prepared / "models/run/data" / TOKENIZER)
    write(
        prepared,
        [{"prompt": f"{n}?", "answer": [None, 2, "x", {"a": 1}][n]} for n in range(4)] + [{"prompt": "4?", "id": 4}],
    )
    grpo = Grpo.model_validate({"dataset": DATASET, "rewards": [{"function": "a:b"}]})
    rows = prompt_rows(stage(prepared, grpo=grpo.model_dump()), grpo, tokenizer, Board("given", 1))["train_dataset"]
    assert [row["answer"] for row in rows] == [None, 2, "x", {"a": 1}, None]
    assert [row["id"] for row in rows] == [None] * 4 + [4]
    few = grpo.model_copy(update={"global_batch_size": 48})
    with pytest.raises(DataError, match=r"5 prompts are left to train on \(0 are held out\), and a step takes 6"):
        prompt_rows(stage(prepared, grpo=few.model_dump()), few, tokenizer, Board("given", 1))
    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    reward = RewardModel.model_validate({"dataset": DATASET, "globalBatchSize": 1})
    for margins, expected in (([None, 0.5], [0.0, 0.5]), ([None, None], None)):
        write(prepared, [{**pair, "margin": margin} for margin in margins])
        made = rows_of(stage(prepared, rewardModel=reward.model_dump()), reward, tokenizer, Board("given", 1))[
            "train_dataset"
        ]
        assert (list(made["margin"]) if "margin" in made.column_names else None) == expected


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_the_check_of_a_stage_is_that_of_its_preparation(kind: str, prepared: Path) -> None:
    """What the operator writes for data preparation says the same as the stage's own settings."""
    from llm_trainer.config import settings_of
    from llm_trainer.stages.fine_tuning import check_of

    config = stage(prepared, **{kind: {"dataset": DATASET, "maxLength": 77, "seed": 5, "globalBatchSize": 4}})
    settings: Any = settings_of(config)
    known = DatasetCheck.of(settings, f"spec.stages[0].{kind}").model_dump(exclude={"field", "length_field"})
    assert check_of(config, settings).model_dump(exclude={"field", "length_field"}) == known


@pytest.mark.parametrize("kind", ["sft", "dpo", "ppo"])
def test_a_stage_maps_what_its_preparation_has_kept(
    kind: str, prepared: Path, pods: RunPods, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the key that both find, with the tokenizer of a model that has a copy of the training's."""
    from llm_trainer.config import settings_of
    from llm_trainer.data.examples import Examples
    from llm_trainer.data.kept_rows import table_of
    from llm_trainer.data.shared_rows import RowMaking
    from llm_trainer.stages.fine_tuning import check_of

    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    write(prepared, [RIGHT if kind == "sft" else pair] * 40)
    own = {"rewards": [{"function": "a:b"}]} if kind == "ppo" else {"maxLength": 77}
    config = stage(prepared, **{kind: {"dataset": DATASET, **own}})
    config = config.model_copy(update={"run_uri": f"pvc://models/run-kept-{kind}"})
    settings: Any = settings_of(config)
    check = DatasetCheck.of(settings, f"spec.stages[0].{kind}", "given").model_dump(by_alias=True)
    pods(preparation(prepared, check, f"run-kept-{kind}")).run()
    load_tokenizer(prepared / "models/run/data" / TOKENIZER).save_pretrained(prepared / "models/copy")
    tokenizer = load_tokenizer(prepared / "models/copy")
    made = table_of(Examples(check_of(config, settings), tokenizer, config.volumes_root))

    def again(*_: Any) -> Any:
        raise AssertionError("the rows are made once more")

    monkeypatch.setattr(RowMaking, "make", again)
    if kind == "ppo":
        prompts = prompt_rows(config, settings, tokenizer, Board("given", 1))["train_dataset"]
        assert list(prompts) == prompts[:] == [json.loads(row) for row in made["row"].to_pylist()] != []
        return
    rows = rows_of(config, settings, tokenizer, Board("given", 1))["train_dataset"]
    assert rows.data.table.equals(made)
