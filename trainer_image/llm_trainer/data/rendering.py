"""Conversations as tokens, by the tokenizer's chat template, and what of them the assistant has said.

Text is text: a special token that a row spells, such as `<|im_end|>`, is encoded as the characters that it has. Only
the template writes control tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from llm_trainer.data.messages import Message
from llm_trainer.data.spans import Tokens, mapped, strings
from llm_trainer.runtime.errors import ConfigurationError, DataError

Prompt = str | list[Message]  # text, or the turns of a conversation
MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
OTHER_CALL = [{"type": "function", "function": {"name": "Zq7", "arguments": {}}}]
STAND_INS = 0xF0000  # private use: no text means anything by these
TODAY = datetime(2026, 1, 1)  # noqa: DTZ001 -- for templates that write a date: rows are the same whenever they are read


@dataclass(frozen=True)
class Conversation:
    """``said``: for each token whether the assistant has said it, as far as was asked."""

    ids: list[int]
    said: list[bool]


@dataclass(frozen=True)
class Turn:
    """How a chat template ends a turn of the assistant: ``end``, the token by which it stops, and ``tail`` after it."""

    end: int | None
    tail: list[int] = field(default_factory=list)


class Chat:
    """A tokenizer's chat template. ``name``: of the tokenizer's place in a user's words, for errors."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str = "the tokenizer's chat template") -> None:
        """Raises ConfigurationError for a tokenizer without a chat template."""
        if not tokenizer.chat_template:
            raise ConfigurationError(
                "the dataset holds conversations, and the tokenizer has no chat template to write them: use text, or a "
                "tokenizer with a chat template"
            )
        if not tokenizer.is_fast:
            raise ConfigurationError(
                f"{name}: conversations need a fast tokenizer (tokenizer.json), and this is a "
                f"{type(tokenizer).__name__}; convert it, or use text"
            )
        self.tokenizer, self.name = tokenizer, name
        self.special = special_tokens(tokenizer)
        self._numbers = {tokenizer.convert_tokens_to_ids(token) for token in self.special}
        self._spelled = re.compile("|".join(map(re.escape, sorted(self.special, key=len, reverse=True))) or r"(?!)")
        self._marked: dict[str, str | None] = {}
        self.turn = self._find_turn()

    def encode(
        self,
        messages: list[Message],
        where: str,
        *,
        tools: list[Any] | None = None,
        arguments: dict[str, Any] | None = None,
        prompt: bool = False,
        said: bool = False,
        first: int = 0,
    ) -> Conversation:
        """`prompt`: up to where an answer begins. `said`: find what the assistant says, in turns of weight 1, of those
        from the turn `first` on at least.

        Raises DataError naming `where` for a conversation that the template refuses, or of which it leaves out a turn,
        and where what is said can't be told.
        """
        stands, (messages, tools, arguments) = self._stand_ins([messages, tools, arguments])
        render = Render(self, where, tools, arguments or {}, self._template(tools, marked=said))
        text, spans = render(messages, prompt=prompt)
        self._check_whole(render, messages, text, where)
        tokens = self._tokens(text, stands, where)
        mask = [False] * len(tokens.ids)
        if said:
            if not MARKS.search(render.template):
                spans = self._said_by_prefixes(render, messages, text, tokens, where, first)
            elif len(spans) == sum(message["role"] == "assistant" for message in messages):
                weights = [message.get("weight", 1) for message in messages if message["role"] == "assistant"]
                spans = [span for span, weight in zip(spans, weights, strict=True) if weight]
            elif any(message.get("weight") == 0 for message in messages):
                raise DataError(f"{where}: {self.name} marks other parts than turns, so a weight can't be told")
            for begin, end in spans:
                for place in tokens.between(begin, end):
                    mask[place] = True
            if not any(mask):
                raise DataError(f"{where}: {self.name} writes nothing that the assistant says")
        return Conversation(tokens.ids, mask)

    def _template(self, tools: list[Any] | None, *, marked: bool) -> str:
        """With marks, `{% generation %}`, where it has them or TRL knows how to mark it."""
        try:
            template: str = self.tokenizer.get_chat_template(None, tools)
        except ValueError as error:
            raise ConfigurationError(f"{self.name}: {error}") from error
        if not marked or MARKS.search(template):
            return template
        if template not in self._marked:
            self._marked[template] = known_marks(self.tokenizer, template)
        return self._marked[template] or template

    def _find_turn(self) -> Turn:
        """From what stands after an answer that nothing follows."""
        answer = "Zq7"
        messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]
        try:
            render = Render(self, "", None, {}, self._template(None, marked=False))
            text, _ = render(messages)
        except DataError:
            return Turn(None)
        if answer not in text:
            return Turn(None)
        tokens = self._tokens(text, {}, "")
        after = [tokens.ids[place] for place in tokens.between(text.rindex(answer) + len(answer), len(text))]
        place = next((place for place, number in enumerate(after) if number in self._numbers), None)
        return Turn(None) if place is None else Turn(after[place], after[place + 1 :])

    # --- text is text ---

    def _stand_ins(self, parts: list[Any]) -> tuple[dict[str, str], list[Any]]:
        """A character for each special token that the texts spell, and the parts with these in their place."""
        texts = list(strings(parts))
        spelled = {match for text in texts for match in self._spelled.findall(text)} if self.special else set()
        if not spelled:
            return {}, parts
        taken = {letter for text in texts for letter in text if ord(letter) >= STAND_INS}
        free = (letter for number in range(STAND_INS, 0x10FFFE) if (letter := chr(number)) not in taken)
        stands = dict(zip(sorted(spelled), free, strict=False))
        replaced = [mapped(part, lambda text: self._spelled.sub(lambda m: stands[m.group()], text)) for part in parts]
        return {letter: token for token, letter in stands.items()}, replaced

    def _tokens(self, text: str, stands: dict[str, str], where: str) -> Tokens:
        tokens = self._plain_tokens(text)
        if not any(letter in text for letter in stands):
            return tokens
        made = Tokens([], [], [])
        for begin, end in self._parts(tokens):
            part = Tokens(tokens.ids[begin:end], tokens.starts[begin:end], tokens.ends[begin:end])
            if any(letter in text[part.starts[0] : part.ends[-1]] for letter in stands):
                first = tokens.ends[begin - 1] if begin else 0  # with the space that an offset leaves out
                last = tokens.starts[end] if end < len(tokens.ids) else len(text)
                part = self._as_text(text[first:last], first, part.ids, stands, where)
            made = made + part
        return made

    def _plain_tokens(self, text: str, **how: Any) -> Tokens:
        made = self.tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
            **how,
        )
        offsets = made["offset_mapping"]
        # an offset of nothing, as some tokenizers give to a token that they add, stands where the one before ends
        starts, ends, last = [], [], 0
        for begin, end in offsets:
            begin, end = (begin, end) if end > begin or begin >= last else (last, last)
            starts.append(begin)
            ends.append(max(end, last))
            last = max(end, last)
        return Tokens(list(made["input_ids"]), starts, ends)

    def _parts(self, tokens: Tokens) -> list[tuple[int, int]]:
        """Runs of tokens that are special, each by itself, and of those that are not."""
        parts: list[tuple[int, int]] = []
        begin = 0
        for place, number in enumerate(tokens.ids):
            if number in self._numbers:
                parts += [(begin, place)] * (begin < place) + [(place, place + 1)]
                begin = place + 1
        return parts + [(begin, len(tokens.ids))] * (begin < len(tokens.ids))

    def _as_text(self, part: str, begin: int, known: list[int], stands: dict[str, str], where: str) -> Tokens:
        """The tokens of a part, from the character `begin`, in which characters stand for special tokens that are text.

        Encoded by itself; a tokenizer that writes something before every text, as SentencePiece's do, is told by the
        part with the stand-ins, whose tokens `known` are those in their place. Raises DataError where it can't be told.
        """
        restored = "".join(stands.get(letter, letter) for letter in part)
        alone, found = self._plain_tokens(part).ids, self._plain_tokens(restored, split_special_tokens=True)
        extra = len(alone) - len(known)
        same = extra in (0, 1) and alone[extra:] == known and alone[:extra] == found.ids[:extra]
        if not same or self._numbers.intersection(found.ids):
            spelled = ", ".join(token for letter, token in stands.items() if letter in part) or ", ".join(
                stands.values()
            )
            raise DataError(
                f"{where} spells {spelled}, a special token, and this tokenizer can't encode it as text; remove it or "
                "write it otherwise"
            )
        places = [place for place, letter in enumerate(part, begin) for _ in stands.get(letter, letter)]
        ends = [0, *(place + 1 for place in places)]
        return Tokens(
            found.ids[extra:],
            [places[start] if start < len(places) else begin + len(part) for start in found.starts[extra:]],
            [ends[end] for end in found.ends[extra:]],
        )

    # --- what is there, and who said it ---

    def _check_whole(self, render: Render, messages: list[Message], text: str, where: str) -> None:
        """Raises DataError for a turn, or a tool, that the template leaves out."""
        for number, message in enumerate(messages):
            content = message["content"].strip()
            if content and content not in text and content.rpartition("</think>")[2].strip() not in text:
                changed = [
                    *messages[:number],
                    {**message, "content": "Zq7 " + message["content"]},
                    *messages[number + 1 :],
                ]
                if render(changed)[0] == render(messages)[0]:
                    raise DataError(
                        f"{where}: {self.name} leaves out turn {number}, of the role {message['role']}; write it in "
                        "another role, remove it, or use a template that has the role"
                    )
            if "tool_calls" in message:
                changed = [*messages[:number], {**message, "tool_calls": OTHER_CALL}, *messages[number + 1 :]]
                if render(changed)[0] == render(messages)[0]:
                    raise DataError(
                        f"{where}: {self.name} leaves out the tool calls of turn {number}; use one that has them"
                    )
        if render.tools and replace(render, tools=None)(messages)[0] == render(messages)[0]:
            raise DataError(f"{where}: {self.name} leaves out the tools; remove the column, or use one that has them")

    def _said_by_prefixes(
        self, render: Render, messages: list[Message], text: str, tokens: Tokens, where: str, first: int
    ) -> list[tuple[int, int]]:
        """What each turn of the assistant adds to the conversation before it, up to the end of the turn.

        Raises DataError unless what is before it, and it, are what the whole begins with, also in tokens: then the
        model learns what it will be asked for.
        """
        spans = []
        for number, message in enumerate(messages):
            if number < first or message["role"] != "assistant" or message.get("weight") == 0:
                continue
            before = render(messages[:number], prompt=True)[0] if number else self._greeting(render, text)
            after = text if number == len(messages) - 1 else render(messages[: number + 1])[0]
            if not text.startswith(after):  # some end every conversation with the end of text
                after = after.removesuffix(str(self.tokenizer.eos_token))
            if not (text.startswith(after) and after.startswith(before)):
                raise DataError(
                    f"{where}: {self.name} writes what comes before turn {number}, or the turn itself, otherwise once "
                    "more turns follow (some leave out earlier reasoning), so what the assistant says can't be told: "
                    "make a row of each answer, put {% generation %} … {% endgeneration %} around it in the template, "
                    "or set assistantOnlyLoss: false to learn whole conversations"
                )
            said = tokens.between(len(before), len(after))
            if not self._begins_here(text, before, tokens, said):
                raise DataError(
                    f"{where}: the tokens of what comes before turn {number} are others once the turn follows: "
                    f"{before[-20:]!r} and {after[len(before) :][:20]!r} grow together. End the template's prompt on a "
                    "token's border, or set assistantOnlyLoss: false to learn whole conversations"
                )
            spans.append((len(before), self._end_of(tokens, said, len(after))))
        return spans

    def _greeting(self, render: Render, text: str) -> str:
        """What stands before an answer with which a conversation begins, which some templates can't write by itself."""
        asked = [{"role": "user", "content": "Hi"}]
        opening = render(asked, prompt=True)[0].removeprefix(render(asked)[0])
        return text[: text.find(opening) + len(opening)] if opening and opening in text else render([], prompt=True)[0]

    def _begins_here(self, text: str, before: str, tokens: Tokens, said: range) -> bool:
        """Whether the tokens of `before` are those that the whole begins with."""
        place = said.start
        if place in range(len(tokens.ids)) and text[: tokens.starts[place]].rstrip() not in (before, before.rstrip()):
            return False
        if any(letter >= chr(STAND_INS) for letter in before):
            return True  # as in rows that spell no special token
        # nothing grows over a special token, so what follows the last one tells
        last = next((number for number in reversed(range(place)) if tokens.ids[number] in self._numbers), None)
        if last is not None:
            rest = text[tokens.ends[last] : len(before)]
            if not rest or self._plain_tokens(rest).ids == tokens.ids[last + 1 : place]:
                return True
        return self._plain_tokens(before).ids == tokens.ids[:place]

    def _end_of(self, tokens: Tokens, said: range, end: int) -> int:
        """The end of what is said: without what the template writes after the end of the turn."""
        wanted = self.turn.end if self.turn.end is not None else self.tokenizer.eos_token_id
        last = next((place for place in reversed(said) if tokens.ids[place] == wanted), None)
        return end if last is None else tokens.ends[last]


@dataclass(frozen=True)
class Render:
    """A chat template as a function of the turns. Raises DataError with what the template says against them."""

    chat: Chat
    where: str
    tools: list[Any] | None
    arguments: dict[str, Any]
    template: str

    def __call__(self, messages: list[Message], *, prompt: bool = False) -> tuple[str, list[tuple[int, int]]]:
        """The text, and the characters that are within the template's marks."""
        try:
            texts, spans = render_jinja_template(
                conversations=[messages],
                tools=self.tools,
                chat_template=self.template,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=bool(MARKS.search(self.template)),
                **{"strftime_now": TODAY.strftime, **self.chat.tokenizer.special_tokens_map, **self.arguments},
            )
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{self.where}: {self.chat.name} refuses the conversation ({', '.join(m['role'] for m in messages)}): "
                f"{said}; change the row, or use another template"
            ) from error
        return texts[0], spans[0] if spans else []


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids, up to where the answer begins."""
    if isinstance(prompt, str):
        ids: list[int] = tokenizer(prompt, verbose=False)["input_ids"]
        return ids
    return chat_of(tokenizer).encode(prompt, "a prompt", prompt=True).ids


def chat_of(tokenizer: PreTrainedTokenizerBase) -> Chat:
    """Raises as `Chat` does."""
    return _chat(tokenizer, repr(tokenizer.chat_template))


@lru_cache(maxsize=8)
def _chat(tokenizer: PreTrainedTokenizerBase, _template: str) -> Chat:
    return Chat(tokenizer)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """As they are spelled."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return list(dict.fromkeys([*tokenizer.all_special_tokens, *added]))


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> Turn:
    """The end of text where there is no chat template, or none that ends a turn by a token of its own."""
    turn = chat_of(tokenizer).turn if tokenizer.chat_template and tokenizer.is_fast else Turn(None)
    return turn if turn.end is not None else Turn(tokenizer.eos_token_id)


def stop_tokens(tokenizer: PreTrainedTokenizerBase, known: int | Sequence[int] | None = None) -> list[int]:
    """Where a model stops that learned by this tokenizer: at the end of text, of a turn, and at what is `known`."""
    others = [known] if isinstance(known, int) else list(known or ())
    return list(dict.fromkeys([tokenizer.eos_token_id, end_of_turn(tokenizer).end or tokenizer.eos_token_id, *others]))


def known_marks(tokenizer: PreTrainedTokenizerBase, template: str) -> str | None:
    """TRL knows the templates of many models, and how to mark what the assistant says; None for others."""
    from trl.chat_template_utils import get_training_chat_template

    whole = tokenizer.chat_template
    try:
        tokenizer.chat_template = template
        made: str = get_training_chat_template(tokenizer)
    except ValueError:
        return None
    finally:
        tokenizer.chat_template = whole
    return made if MARKS.search(made) else None
