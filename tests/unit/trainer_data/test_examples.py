"""A dataset as a stage learns from it, and what data preparation tells of it: both by the same functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_trainer.config import DatasetCheck, Dpo, FineTuning, Grpo, Kto, Ppo, RewardModel, Sft
from llm_trainer.data.examples import IGNORED, Example, Examples
from llm_trainer.data.tokenizer_checks import check_rows
from llm_trainer.protocol import Notice
from llm_trainer.runtime.errors import ConfigurationError, DataError, PreemptedError

from .conftest import WriteLines
from .templates import FAMILIES, tokenizer_of, tokenizer_with

REWARDS = {"rewards": [{"function": "a:b"}]}
KINDS: dict[str, tuple[type[FineTuning], dict[str, Any]]] = {
    "sft": (Sft, {}),
    "rewardModel": (RewardModel, {}),
    "dpo": (Dpo, {}),
    "kto": (Kto, {}),
    "grpo": (Grpo, {**REWARDS, "globalBatchSize": 8, "numGenerations": 4}),
    "ppo": (Ppo, REWARDS),
}
Read = Callable[..., tuple[list[Example], dict[str, str]]]


def check_of(kind: str, fraction: float = 0.0, **changes: Any) -> DatasetCheck:
    model, known = KINDS[kind]
    dataset = {"uri": "pvc://corpus/rows.jsonl", "validationFraction": fraction}
    written = {
        "dataset": dataset,
        "globalBatchSize": 1,
        "microBatchSize": 2 if kind == "kto" else 1,
        **known,
        **changes,
    }
    return DatasetCheck.of(model.model_validate(written), f"spec.stages[0].{kind}")


@pytest.fixture
def read(volumes: Path, write_lines: WriteLines) -> Read:
    """The examples, and the notices by reason."""

    def read(rows: list[Any], kind: str = "sft", tokenizer: Any = None, **changes: Any) -> Any:
        write_lines("rows.jsonl", rows)
        examples = Examples(check_of(kind, **changes), tokenizer or tokenizer_of("chatml"), str(volumes))
        made = list(examples)
        return made, {notice.reason: notice.message for notice in examples.notices()}

    return read


def chat(question: str, *answers: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}]
    for answer in answers:
        turns += [{"role": "assistant", "content": answer}, {"role": "user", "content": "more"}]
    return {"messages": turns[:-1]}


def test_learns_what_the_assistant_says(read: Read) -> None:
    (example,), notices = read([chat("what is a list?", "a row", "of it")])
    tokenizer = tokenizer_of("chatml")
    learned = [token for token in example["labels"] if token != IGNORED]
    assert tokenizer.decode(learned) == "a row<|im_end|>of it<|im_end|>"
    (whole,), _ = read([chat("what is a list?", "a row")], assistantOnlyLoss=False)
    assert whole["labels"] == whole["input_ids"]
    assert not notices


@pytest.mark.parametrize(
    ("row", "learned"),
    [
        ({"prompt": "one two", "completion": " three"}, " three<|endoftext|>"),
        ({"prompt": "one ", "completion": "two"}, " two<|endoftext|>"),
        ({"prompt": "one", "completion": " two<|endoftext|>"}, " two<|endoftext|>"),
        ({"text": "one two"}, "one two<|endoftext|>"),
        ({"prompt": "one", "completion": [{"role": "assistant", "content": "two"}]}, "two<|im_end|>"),
        ({"instruction": "one", "output": "two"}, "two<|im_end|>"),
        ({"conversations": [{"from": "human", "value": "one"}, {"from": "gpt", "value": "two"}]}, "two<|im_end|>"),
    ],
)
def test_every_format(read: Read, row: Any, learned: str) -> None:
    (example,), _ = read([row])
    assert tokenizer_of("chatml").decode([token for token in example["labels"] if token != IGNORED]) == learned


def test_a_prompt_that_grows_into_its_answer_is_told(read: Read) -> None:
    _, notices = read([{"prompt": f"question {number}: ", "completion": "answer"} for number in range(3)])
    assert "in 3 of 3 rows" in notices["PromptsMerged"]


def test_rows_that_are_too_long(read: Read) -> None:
    long, short = chat("very " * 60, "the answer"), chat("hi", "the answer")
    examples, notices = read([long, short, chat("hi", "very " * 60)], maxLength=32)
    assert [len(example["input_ids"]) <= 32 for example in examples] == [True, True]
    assert "1 of 3 rows are left out" in notices["RowsDropped"]
    assert "spec.stages[0].sft.maxLength" in notices["RowsDropped"]
    assert "1 of 3 rows are longer than 32 tokens" in notices["AnswersCutOff"]
    with pytest.raises(DataError, match=r"^spec.stages\[0\].sft.maxLength: no row of .* is left: the first 32 tokens"):
        read([long, long], maxLength=32)


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("rewardModel", {"prompt": "one " * 40, "chosen": "a", "rejected": "b"}),
        ("dpo", {"prompt": "one " * 40, "chosen": "a", "rejected": "b"}),
        ("kto", {"prompt": "one " * 40, "completion": "a", "label": True}),
        ("grpo", {"prompt": "one " * 40}),
        ("ppo", {"prompt": "one " * 40}),
    ],
)
def test_every_kind_says_when_no_row_is_left(read: Read, kind: str, row: Any) -> None:
    length = {"maxPromptLength": 16} if kind in ("grpo", "ppo") else {"maxLength": 16}
    with pytest.raises(DataError, match=rf"^spec.stages\[0\].{kind}.max.*: no row of"):
        read([row], kind, **length)


def test_fewer_rows_than_a_step_takes(read: Read) -> None:
    _, notices = read([chat(f"q {number}", "a") for number in range(3)], globalBatchSize=8)
    assert "3 rows to train on are fewer than the 8 of a step" in notices["FewRows"]
    prompts = [{"prompt": f"what is {number}? "} for number in range(3)]
    assert len(read(prompts, "grpo", globalBatchSize=12)[0]) == 3
    with pytest.raises(DataError, match=r"3 prompts are left to train on \(0 are held out\), and a step takes 4"):
        read(prompts, "grpo", globalBatchSize=16)
    with pytest.raises(DataError, match=r"2 prompts are left to train on \(1 are held out\), and a step takes 3"):
        read(prompts, "grpo", globalBatchSize=12, fraction=0.01)


def test_identical_rows(read: Read) -> None:
    examples, notices = read([chat("hi", "hello")] * 8, fraction=0.05)
    assert len(examples) == 8
    assert "none of 8 rows is held out, because all have the same prompt" in notices["NothingHeldOut"]
    assert "NothingHeldOut" not in read([chat("hi", "hello")] * 8)[1]


def test_labels_and_odd_rows(read: Read) -> None:
    rows = [{"prompt": f"p {number}", "completion": f" c {number}", "label": number % 2 == 1} for number in range(9)]
    _, notices = read(rows, "kto")
    assert "of 9 rows the last is alone" in notices["OddRows"]
    assert "every answer is good" in read(rows[1::2], "kto")[1]["OneLabel"]


def test_what_nobody_reads_is_told(read: Read) -> None:
    row = chat("q", "a")
    row["messages"][0]["name"] = "kim"
    _, notices = read([{**row, "weight": 1, "id": 7}])
    assert "none of the columns id, weight" in notices["ColumnsUnread"]
    assert "none of the turns' keys name" in notices["KeysUnread"]


def test_a_template_that_ends_no_turn(read: Read) -> None:
    template = "{% for m in messages %}{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}"
    _, notices = read([chat("q", "a")], tokenizer=tokenizer_with(template))
    assert "none tells the model to stop" in notices["NoEndOfTurn"]


def test_prompts_keep_their_columns_as_they_are(read: Read) -> None:
    rows = [
        {"prompt": "what is 0?", "answer": None},
        {"prompt": "what is 1?", "answer": 2},
        {"prompt": "3?", "x": ["y"]},
    ]
    made, _ = read(rows, "ppo")
    assert [json.loads(each["row"]) for each in made] == [{"prompt": "what is 0?"}, *rows[1:]], "null is no value"
    with pytest.raises(DataError, match="line 2: prompt is a list, and before a str"):
        read([{"prompt": "q"}, {"prompt": chat("q", "a")["messages"][:1]}], "ppo")


def test_whoever_reads_can_be_asked_to_leave(read: Read, volumes: Path) -> None:
    def leave() -> None:
        raise PreemptedError("asked")

    read([chat(f"q {number}", "a") for number in range(3)])
    with pytest.raises(PreemptedError):
        check_rows(check_of("sft"), tokenizer_of("chatml"), str(volumes), leave)


def test_a_conversation_without_a_template(read: Read) -> None:
    with pytest.raises(ConfigurationError, match=r"^spec.stages\[0\].sft.dataset.uri: the dataset holds conversations"):
        read([chat("q", "a")], tokenizer=tokenizer_with(""))


def test_a_refusal_names_the_row(read: Read) -> None:
    first = {"messages": [{"role": "assistant", "content": "Hello"}, *chat("hi", "yes")["messages"]]}
    with pytest.raises(
        DataError, match=r"rows.jsonl, line 2: the tokenizer's chat template refuses the conversation \("
    ):
        read([chat("q", "a"), first], tokenizer=tokenizer_of("mistral"))


# --- whatever rows: what data preparation accepts, the stage reads; no error but DataError and ConfigurationError ---

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8)
TEXT = st.sampled_from(["", " ", "q", "a\n", "<|im_end|>", "<|endoftext|>x", "日本", "e\u0301", "\x00"]) | st.text(
    max_size=9
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
ROLES = st.sampled_from(["user", "assistant", "system", "tool", "developer", "bot", ""])
TURN = st.fixed_dictionaries(
    {"role": ROLES, "content": TEXT | VALUES},
    optional={"name": VALUES, "weight": st.sampled_from([0, 1, 2, None]), "tool_calls": VALUES},
)
TURNS = st.lists(TURN, max_size=4) | st.sampled_from([chat("q", "a")["messages"], chat("q", "a")["messages"][:1]])
CELL = TEXT | TURNS | VALUES
FOREIGN = st.fixed_dictionaries(
    {
        "conversations": st.lists(
            st.dictionaries(
                st.sampled_from(["from", "value", "role", "content"]),
                st.sampled_from(["human", "gpt", "user", "x"]) | VALUES,
            )
        )
    }
)
COLUMNS = ["messages", "prompt", "completion", "chosen", "rejected", "label", "margin", "text", "tools", "instruction",
           "output", "history", "images", "answer", "chat_template_kwargs"]  # fmt: skip


def rows_for(kind: str) -> st.SearchStrategy[Any]:
    """Rows that are nearly right, and of any kind."""
    sets = KINDS[kind][0].columns
    near = [
        st.fixed_dictionaries({column: st.booleans() if column == "label" else CELL for column in names})
        for names in sets
    ]
    far = st.dictionaries(st.sampled_from(COLUMNS), CELL, max_size=5)
    return st.one_of(*near, *near, far, FOREIGN, VALUES)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", ["chatml", "mistral", "qwen3"])
@given(data=st.data())
@settings(max_examples=settings().max_examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_data_preparation_accepts_the_stage_reads(
    volumes: Path, kind: str, template: str, data: st.DataObject
) -> None:
    rows = data.draw(st.lists(rows_for(kind), min_size=1, max_size=4))
    fraction = data.draw(st.sampled_from([0.0, 0.3]))
    (volumes / "corpus/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    check = check_of(kind, fraction, **({} if kind == "grpo" else {"globalBatchSize": 2}))
    tokenizer = tokenizer_of(template)
    try:
        notices = check_rows(check, tokenizer, str(volumes))
    except (DataError, ConfigurationError) as error:
        named = str(error).startswith("spec.stages[0].")
        assert named, error  # noqa: PT017 -- any other exception is the failure
        return
    assert all(isinstance(notice, Notice) for notice in notices)
    examples = Examples(check, tokenizer, str(volumes))
    made = list(examples)
    assert len(made) == len(examples.held_out())
    assert not examples.held_out().all()
    for example in made:
        tokens = [value for name, value in example.items() if name.endswith("_ids") and name != "prompt_ids"]
        assert all(tokens), "tokens of nothing"


def asked(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answered(text: str, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **keys}


def test_answers_that_call_other_tools_have_no_turn_in_common(read: Read) -> None:
    """Their texts are equal, and empty: what differs is what is learned."""
    pair = {
        column: [
            asked("q"),
            answered("", tool_calls=[{"type": "function", "function": {"name": column, "arguments": {}}}]),
            {"role": "tool", "content": "r"},
            answered("a"),
        ]
        for column in ("chosen", "rejected")
    }
    tokenizer = tokenizer_of("qwen2.5")
    ((example,), _) = read([pair], "dpo", tokenizer)
    for column in pair:
        assert column in tokenizer.decode(example[f"{column}_ids"])
    assert "chosen" not in tokenizer.decode(example["prompt_ids"])


def test_a_row_of_each_answer_where_a_template_leaves_out_earlier_reasoning(read: Read) -> None:
    """As the refusal of the whole conversation advises."""
    turns = [asked("one"), answered("<think>two</think>three"), asked("four"), answered("<think>five</think>six")]
    tokenizer = tokenizer_of("qwen3")
    with pytest.raises(DataError, match="make a row of each answer"):
        read([{"messages": turns}], tokenizer=tokenizer)
    ((example,), _) = read([{"prompt": turns[:3], "completion": turns[3:]}], tokenizer=tokenizer)
    learned = [token for token in example["labels"] if token != IGNORED]
    assert tokenizer.decode(learned) == "<think>five</think>six<|im_end|>"


def test_a_weight_is_kept_or_told(read: Read) -> None:
    turns = {"prompt": [asked("one")], "completion": [answered("two", weight=0), asked("three"), answered("four")]}
    ((example,), found) = read([turns])
    learned = [token for token in example["labels"] if token != IGNORED]
    assert (tokenizer_of("chatml").decode(learned), found) == ("four<|im_end|>", {})
    said = {"user": "human", "assistant": "gpt"}
    shared = [
        {"weight": turn.get("weight", 1), "from": said[turn["role"]], "value": turn["content"]}
        for turn in turns["prompt"] + turns["completion"]
    ]
    for row in (turns, {"messages": turns["prompt"] + turns["completion"]}, {"conversations": shared}):
        with pytest.raises(DataError, match="weight 0 needs assistantOnlyLoss: true"):
            read([row], assistantOnlyLoss=False)
    pair = {"prompt": [asked("one")], "chosen": [answered("two", weight=0)], "rejected": [answered("three")]}
    assert "weight" in read([pair], "dpo")[1]["KeysUnread"]


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("grpo", [{"prompt": "one", "x": None}, {"prompt": "two", "x": 1}]),
        ("rewardModel", [{"prompt": "one", "chosen": "a", "rejected": "b", "margin": None}]),
        ("sft", [{"messages": [asked("one"), answered("two")], "tools": None, "chat_template_kwargs": None}]),
    ],
)
def test_a_null_in_a_column_that_is_read_is_no_unread_column(read: Read, kind: str, rows: list[Any]) -> None:
    assert "ColumnsUnread" not in read(rows, kind, globalBatchSize=2 if kind == "grpo" else 1, **(
        {"numGenerations": 2} if kind == "grpo" else {}
    ))[1]  # fmt: skip


def test_a_template_that_writes_the_date(read: Read) -> None:
    """Rows are the same on another day, as a resume must have it; a row may write its own."""
    date = "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}\n"
    tokenizer = tokenizer_with(date + FAMILIES["chatml"].plain, FAMILIES["chatml"].tokens)
    row = {"messages": [asked("one"), answered("two")]}
    ((example,), _) = read([row], tokenizer=tokenizer)
    assert tokenizer.decode(example["input_ids"]).startswith("01 Jan 2026\n")
    ((example,), _) = read([{**row, "chat_template_kwargs": {"date_string": "today"}}], tokenizer=tokenizer)
    assert tokenizer.decode(example["input_ids"]).startswith("today\n")


def test_arguments_of_a_template_are_text_too(read: Read) -> None:
    tokenizer = tokenizer_with("{{ rules }}" + FAMILIES["chatml"].plain, FAMILIES["chatml"].tokens)
    row = {"messages": [asked("one"), answered("two")], "chat_template_kwargs": {"rules": "<|im_end|>"}}
    ((example,), _) = read([row], tokenizer=tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert example["input_ids"].count(end) == 2
    assert tokenizer.decode(example["input_ids"]).startswith("<|im_end|><|im_start|>user")


def test_a_warm_up_that_outlasts_the_rows_that_are_left(volumes: Path, write_lines: WriteLines) -> None:
    """Those that are held out are not trained on."""
    write_lines("rows.jsonl", [{"prompt": f"{number}", "completion": "a"} for number in range(20)])
    tokenizer, schedule = tokenizer_of("chatml"), {"warmupSteps": 19}
    assert check_rows(check_of("sft", schedule=schedule), tokenizer, str(volumes)) == []
    with pytest.raises(DataError, match=r"spec\.stages\[0\]\.schedule\.warmupSteps: .* rows to train on.*lower it"):
        check_rows(check_of("sft", 0.5, schedule=schedule), tokenizer, str(volumes))
