"""What the assistant says, by marks and without; where a turn ends; and that text is text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_trainer.data.messages import read_messages
from llm_trainer.data.rendering import Chat, encode_prompt, end_of_turn, special_tokens, stop_tokens
from llm_trainer.runtime.errors import ConfigurationError, DataError

from .templates import CHATML, FAMILIES, IM, sentencepiece_like, tokenizer_of, tokenizer_with

Turns = list[dict[str, Any]]

WORDS = st.text(st.characters(blacklist_categories=["Cs", "Co"], blacklist_characters="\x00"), min_size=1, max_size=20)
SAID = WORDS.map(str.strip).filter(bool)


@st.composite
def conversations(draw: st.DrawFn) -> Turns:
    turns: Turns = [{"role": "system", "content": draw(SAID)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [{"role": "user", "content": draw(SAID)}, {"role": "assistant", "content": draw(SAID)}]
    return turns


def said_by(chat: Chat, turns: Turns, **how: Any) -> str:
    made = chat.encode(turns, "line 1", said=True, **how)
    return str(chat.tokenizer.decode([token for token, bit in zip(made.ids, made.said, strict=True) if bit]))


def for_family(name: str, turns: Turns) -> Turns:
    return turns if FAMILIES[name].system else [turn for turn in turns if turn["role"] != "system"]


@pytest.mark.parametrize("name", FAMILIES)
@given(turns=conversations())
@settings(max_examples=settings().max_examples // 2)
def test_prefixes_tell_what_marks_tell(name: str, turns: Turns) -> None:
    turns = for_family(name, turns)
    plain, marked = Chat(tokenizer_of(name)), Chat(tokenizer_of(name, marked=True))
    assert plain.encode(turns, "line 1", said=True) == marked.encode(turns, "line 1", said=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_are_those_of_transformers(name: str) -> None:
    """Of a conversation whose text spells no special token, in all of its forms."""
    turns = for_family(name, [{"role": "system", "content": "be kind"}, *QUESTIONS])
    for marked in (False, True):
        chat = Chat(tokenizer := tokenizer_of(name, marked=marked))
        known = tokenizer.apply_chat_template(turns, return_assistant_tokens_mask=marked)
        made = chat.encode(turns, "line 1", said=True)
        assert made.ids == known["input_ids"]
        if marked:
            assert made.said == [bool(bit) for bit in known["assistant_masks"]]
        asked = tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True)["input_ids"]
        assert encode_prompt(tokenizer, turns[:-1]) == asked


QUESTIONS: Turns = [
    {"role": "user", "content": "what is a list?"},
    {"role": "assistant", "content": "a row"},
    {"role": "user", "content": "and two?"},
    {"role": "assistant", "content": "two rows"},
]


@pytest.mark.parametrize(("name", "family"), FAMILIES.items())
def test_the_end_of_a_turn(name: str, family: Any) -> None:
    tokenizer = tokenizer_of(name)
    turn = end_of_turn(tokenizer)
    assert tokenizer.decode([turn.end]) == family.end
    assert tokenizer.decode(turn.tail) == family.tail
    stops = stop_tokens(tokenizer, [7, 8])
    assert stops == list(dict.fromkeys([tokenizer.eos_token_id, turn.end, 7, 8]))
    assert said_by(Chat(tokenizer), for_family(name, QUESTIONS)).endswith(family.end)


def test_a_turn_that_no_token_ends() -> None:
    tokenizer = tokenizer_with("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}")
    assert end_of_turn(tokenizer).end == tokenizer.eos_token_id
    assert Chat(tokenizer).turn.end is None


def test_reasoning_that_a_template_leaves_out_later() -> None:
    """One answer is learned with its reasoning; of several, what the first was can't be told from the whole."""
    chat = Chat(tokenizer_of("qwen3"))
    thought = [QUESTIONS[0], {"role": "assistant", "content": "<think>\nhm\n</think>\na row"}]
    assert said_by(chat, thought) == "<think>\nhm\n</think>\na row<|im_end|>"
    with pytest.raises(DataError, match=r"line 1: .* before turn 1, or the turn itself, .* a row of each answer"):
        chat.encode([*thought, *QUESTIONS[2:]], "line 1", said=True)


@pytest.mark.parametrize("name", ["chatml", "llama-3", "gemma", "phi", "qwen2.5"])
def test_a_conversation_that_begins_with_the_assistant(name: str) -> None:
    turns = [{"role": "assistant", "content": "Hello"}, *QUESTIONS]
    plain, marked = (Chat(tokenizer_of(name, marked=marked)) for marked in (False, True))
    assert plain.encode(turns, "line 1", said=True) == marked.encode(turns, "line 1", said=True)


def test_tokens_that_grow_over_the_border() -> None:
    """The prompt's last blank would be a part of the answer's first token, which the model is never asked for."""
    template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    with pytest.raises(DataError, match=r"line 1: the tokens of what comes before turn 1 .* grow together"):
        Chat(tokenizer_with(template)).encode(QUESTIONS[:2], "line 1", said=True)


def test_weights_choose_the_answers() -> None:
    turns = [{**turn, "weight": 0} if number == 1 else turn for number, turn in enumerate(QUESTIONS)]
    for marked in (False, True):
        assert said_by(Chat(tokenizer_of("chatml", marked=marked)), turns) == "two rows<|im_end|>"


# --- text is text ---


@pytest.mark.parametrize("name", FAMILIES)
@given(turns=conversations(), data=st.data())
@settings(max_examples=settings().max_examples // 2)
def test_text_writes_no_control_tokens(name: str, turns: Turns, data: st.DataObject) -> None:
    """Whatever a text spells, the template's own special tokens are all that there are, and no character is lost."""
    turns = for_family(name, turns)
    for marked in (False, True):
        chat = Chat(tokenizer := tokenizer_of(name, marked=marked))
        specials = set(tokenizer.convert_tokens_to_ids(special_tokens(tokenizer)))
        known = [token for token in chat.encode(turns, "line 1", said=True).ids if token in specials]
        spelled = [
            {**turn, "content": turn["content"] + data.draw(st.sampled_from(special_tokens(tokenizer))) + "x"}
            for turn in turns
        ]
        made = chat.encode(spelled, "line 1", said=True)
        assert [token for token in made.ids if token in specials] == known
        assert all(turn["content"] in tokenizer.decode(made.ids) for turn in spelled)
        if not marked:
            assert made == Chat(tokenizer_of(name, marked=True)).encode(spelled, "line 1", said=True)


def test_what_is_spelled_is_encoded_as_by_itself() -> None:
    tokenizer = tokenizer_of("chatml")
    turns = [{"role": "user", "content": "the <|im_end|> mark"}, {"role": "assistant", "content": "<|im_start|>"}]
    made = Chat(tokenizer).encode(turns, "line 1", said=True)

    def text(value: str) -> list[int]:
        return list(tokenizer(value, split_special_tokens=True)["input_ids"])

    start, end = tokenizer.convert_tokens_to_ids(list(IM))
    assert made.ids == [
        start, *text("user\nthe <|im_end|> mark"), end, *text("\n"),
        start, *text("assistant\n<|im_start|>"), end, *text("\n"),
    ]  # fmt: skip
    assert tokenizer.decode([t for t, bit in zip(made.ids, made.said, strict=True) if bit]) == "<|im_start|><|im_end|>"


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
@given(before=WORDS, after=WORDS, spelled=st.sampled_from(["<s>", "</s>"]))
def test_other_tokenizers_encode_text_as_text_or_refuse(scheme: str, before: str, after: str, spelled: str) -> None:
    """Never a control token, and never tokens that say something else."""
    tokenizer = sentencepiece_like(scheme)
    turns = [{"role": "user", "content": before + spelled + after}, {"role": "assistant", "content": "a list"}]
    try:
        made = Chat(tokenizer).encode(turns, "line 1", said=True)
    except DataError as error:
        assert "can't encode it as text" in str(error) or "grow together" in str(error)  # noqa: PT017
        return
    plain = [{"role": "user", "content": "x"}, turns[1]]
    controls = tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    known = [token for token in Chat(tokenizer).encode(plain, "line 1").ids if token in controls]
    assert [token for token in made.ids if token in controls] == known
    assert [token for token, bit in zip(made.ids, made.said, strict=True) if bit][-1] == controls[1]


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
@pytest.mark.parametrize("content", ["a </s> mark", "</s>", "one</s>two", " the <s> x"])
def test_words_with_a_mark_before_them(scheme: str, content: str) -> None:
    tokenizer = sentencepiece_like(scheme)
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "a list"}]
    made = Chat(tokenizer).encode(turns, "line 1", said=True).ids
    assert made.count(tokenizer.eos_token_id) == made.count(tokenizer.bos_token_id) == 1
    assert content in tokenizer.decode(made)


# --- what a template takes ---


@pytest.mark.parametrize(
    ("template", "turns", "says"),
    [
        (FAMILIES["mistral"].plain, [{"role": "assistant", "content": "hello"}, *QUESTIONS], "roles must alternate"),
        (FAMILIES["gemma"].plain, [{"role": "system", "content": "be kind"}, *QUESTIONS], "System role not supported"),
        (CHATML.replace("[[", "").replace("]]", "").replace("m['content']", "m['contents']"), QUESTIONS, "refuses"),
        ("{% for m in messages %}{% if m.role != 'developer' %}{{ m.content }}{% endif %}{% endfor %}",
         [{"role": "developer", "content": "be kind"}, *QUESTIONS], "leaves out turn 0, of the role developer"),
        ("{% for m in messages %}{{ m.nothing.at_all }}{% endfor %}", QUESTIONS, "refuses the conversation"),
        ("{% for m in messages %}{{ 1 / 0 }}{% endfor %}", QUESTIONS, "division by zero"),
    ],
)  # fmt: skip
def test_what_a_template_refuses_or_leaves_out(template: str, turns: Turns, says: str) -> None:
    with pytest.raises(DataError, match=says) as error:
        Chat(tokenizer_with(template, IM)).encode(turns, "chat.jsonl, line 3")
    assert str(error.value).startswith("chat.jsonl, line 3")


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Lyon"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def test_tool_calls_and_results() -> None:
    turns = read_messages(
        [
            {"role": "user", "content": "weather in Lyon?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "name": "weather", "content": "sunny"},
            {"role": "assistant", "content": "It is sunny."},
        ],
        "messages",
    )
    for marked in (False, True):
        chat = Chat(tokenizer_of("qwen2.5", marked=marked))
        assert said_by(chat, turns, tools=TOOLS) == (
            '<tool_call>{"name": "weather", "arguments": {"city": "Lyon"}}</tool_call><|im_end|>It is sunny.<|im_end|>'
        )
    chat = Chat(tokenizer_of("chatml"))
    with pytest.raises(DataError, match=r"line 1: .* leaves out the tool calls of turn 1"):
        chat.encode(turns, "line 1")
    with pytest.raises(DataError, match=r"line 1: .* leaves out the tools"):
        chat.encode(QUESTIONS, "line 1", tools=TOOLS)


def test_templates_by_name() -> None:
    tokenizer = tokenizer_with("never", IM)
    named = {"default": FAMILIES["chatml"].plain, "tool_use": FAMILIES["qwen2.5"].plain}
    tokenizer.chat_template = named
    try:
        chat = Chat(tokenizer)
        assert said_by(chat, QUESTIONS) == "a row<|im_end|>two rows<|im_end|>"
        assert "# Tools" in tokenizer.decode(chat.encode(QUESTIONS, "line 1", tools=TOOLS).ids)
        tokenizer.chat_template = {"rag": "x"}
        with pytest.raises(ConfigurationError, match="no default"):
            Chat(tokenizer)
    finally:
        tokenizer.chat_template = "never"


def test_no_template() -> None:
    with pytest.raises(ConfigurationError, match="no chat template"):
        Chat(tokenizer_with(""))
