"""Rows of a dataset as the tokens that a stage learns from. Data preparation and the stage call the same functions.

The formats of the tokens are those of TRL's collators; how a row becomes tokens is as TRL does it, but for two things:
conversations are written by `rendering.Chat`, and an error names the row.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from llm_trainer.config import DatasetCheck
from llm_trainer.data.formats import Row
from llm_trainer.data.rendering import Chat, Conversation, Prompt, chat_of
from llm_trainer.data.rows import Share, read_placed_rows
from llm_trainer.data.split import held_out, prompt_number, row_number
from llm_trainer.protocol import Notice
from llm_trainer.runtime.errors import ConfigurationError, DataError

Example = dict[str, Any]  # columns of a row as its stage takes them
IGNORED = -100  # no loss on the token: the index that torch's cross-entropy leaves out
READ_KEYS = {"role", "content", "tool_calls"}  # of a turn, by us or by every template


@dataclass
class Tally:
    """What became of the rows. ``row_numbers``, ``prompt_numbers``: of the kept ones."""

    rows: int = 0
    too_long: int = 0
    cut: int = 0
    merged: int = 0
    labels: dict[bool, int] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    columns: dict[str, None] = field(default_factory=dict)  # of prompts, as they come
    row_numbers: array[int] = field(default_factory=lambda: array("Q"))
    prompt_numbers: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, other: Tally) -> None:
        """Of the rows behind these."""
        self.rows += other.rows
        self.too_long += other.too_long
        self.cut += other.cut
        self.merged += other.merged
        self.labels = {
            label: self.labels.get(label, 0) + other.labels.get(label, 0) for label in {**self.labels, **other.labels}
        }
        self.unread |= other.unread
        self.keys |= other.keys
        self.columns |= other.columns
        self.row_numbers.extend(other.row_numbers)
        self.prompt_numbers.extend(other.prompt_numbers)


class Examples:
    """The examples of a dataset, in its order, and what is to be said of them. Memory: 16 bytes a row."""

    def __init__(self, check: DatasetCheck, tokenizer: PreTrainedTokenizerBase, volumes_root: str) -> None:
        self.check, self.tokenizer, self.volumes_root = check, tokenizer, volumes_root
        self.tally = Tally()
        self._form: type | None = None
        self._read_keys = READ_KEYS | ({"weight"} if check.kind == "sft" else set())

    def __iter__(self) -> Iterator[Example]:
        """The rows that the stage learns from or holds out.

        Raises DataError and ConfigurationError for what a user has to change; at the end if no row is left.
        """
        yield from self.of_share(None)
        self.refuse_none()

    def of_share(self, share: Share | None) -> Iterator[Example]:
        """Of the whole dataset or a share of it, in which no row need be left."""
        self.tally = tally = Tally()
        self._form = share.form if share else None
        for where, row, written in read_placed_rows(self.check, self.volumes_root, tally.unread, share):
            tally.rows += 1
            example = self.encode(row, where)
            if example is None:
                tally.too_long += 1
                continue
            tally.row_numbers.append(row_number(written, self.check.seed))
            tally.prompt_numbers.append(prompt_number(row))
            yield example

    def take(self, tallies: Sequence[Tally]) -> None:
        """As if these shares, in the dataset's order, had been read here. Raises DataError if no row is left."""
        self.tally = Tally()
        for tally in tallies:
            self.tally.add(tally)
        self.refuse_none()

    def refuse_none(self) -> None:
        """Raises DataError if no row is left."""
        if self.tally.too_long == self.tally.rows:
            raise DataError(
                f"{self.check.length_field}: no row of {self.check.uri} is left: {self._why()} in all "
                f"{self.tally.rows}; raise it or shorten the rows"
            )

    def held_out(self) -> npt.NDArray[np.bool_]:
        """For each example, after all have been read, whether it is held out. Raises DataError."""
        rows, prompts = (
            np.array(part, dtype=np.uint64) for part in (self.tally.row_numbers, self.tally.prompt_numbers)
        )
        chosen = held_out(rows, prompts, self.check.validation_fraction, self.check.field)
        refuse_few_prompts(self.check, int((~chosen).sum()), int(chosen.sum()))
        return chosen

    def encode(self, row: Row, where: str) -> Example | None:
        """None for a row that teaches nothing at the stage's length."""
        try:
            match self.check.kind:
                case "sft":
                    return self._sft(row, where)
                case "rewardModel":
                    return self._scored(row, where)
                case "dpo":
                    return self._answers(row, where, ("chosen", "rejected"))
                case "kto":
                    label = row["label"]
                    self.tally.labels[label] = self.tally.labels.get(label, 0) + 1
                    answers = self._answers(row, where, ("completion",))
                    return answers and {**answers, "label": label}
                case _:
                    return self._prompt(row, where)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.check.field}: {error}") from error

    # --- kinds ---

    def _sft(self, row: Row, where: str) -> Example | None:
        said: list[bool] | None = None
        self._check_weights(row, where)
        if "messages" in row:
            made = self._conversation(row, row["messages"], where, said=self.check.assistant_only_loss)
            ids, said = made.ids, made.said if self.check.assistant_only_loss else None
        elif "text" in row:
            ids = self._text(row["text"], ending=True)
        elif isinstance(row["prompt"], list):
            ids, said = self._completed(row, where)
        else:
            ids = self._text(row["prompt"] + row["completion"], ending=True)
            begin = self._shared(self._text(row["prompt"]), ids)
            said = [place >= begin for place in range(len(ids))]
        labels = ids if said is None else [token if bit else IGNORED for token, bit in zip(ids, said, strict=True)]
        if not any(label != IGNORED for label in labels):
            raise DataError(f"{where} has no token to learn from")
        length = self.check.length
        if not any(label != IGNORED for label in labels[:length]):
            return None
        self.tally.cut += any(label != IGNORED for label in labels[length:])
        return {"input_ids": ids[:length], "labels": labels[:length]}

    def _completed(self, row: Row, where: str) -> tuple[list[int], list[bool]]:
        """Tokens of turns that complete others, and whether each is learned; nothing of the prompt is."""
        turns, learned = [*row["prompt"], *row["completion"]], self.check.assistant_only_loss
        made = self._conversation(row, turns, where, said=learned, first=len(row["prompt"]))
        begin = self._shared(self._conversation(row, row["prompt"], where, prompt=True).ids, made.ids)
        mask = made.said if learned else [True] * len(made.ids)
        return made.ids, [place >= begin and bit for place, bit in enumerate(mask)]

    def _check_weights(self, row: Row, where: str) -> None:
        turns = [
            turn for column in ("messages", "completion") if isinstance(row.get(column), list) for turn in row[column]
        ]
        if not self.check.assistant_only_loss and any(turn.get("weight") == 0 for turn in turns):
            raise DataError(f"{where}: a turn's weight 0 needs assistantOnlyLoss: true; set it, or remove the weight")

    def _scored(self, row: Row, where: str) -> Example | None:
        """A pair of whole texts or conversations, which a reward model scores at their ends."""
        made: Example = {}
        for column in ("chosen", "rejected"):
            if isinstance(row["prompt"], list):
                ids = self._conversation(row, [*row["prompt"], *row[column]], where).ids
            else:
                ids = self._text(row["prompt"] + row[column], ending=True)
            made[f"{column}_ids"] = ids
        if max(map(len, made.values())) > self.check.length:
            return None
        return {**made, "margin": row.get("margin")}

    def _answers(self, row: Row, where: str, columns: tuple[str, ...]) -> Example | None:
        """The prompt, and one or two answers to it."""
        if isinstance(row["prompt"], list):
            prompt = self._conversation(row, row["prompt"], where, prompt=True).ids
            wholes = [self._conversation(row, [*row["prompt"], *row[column]], where).ids for column in columns]
        else:
            prompt = self._text(row["prompt"])
            wholes = [self._text(row["prompt"] + row[column], ending=True) for column in columns]
        begin = min(self._shared(prompt, whole, count=number == 0) for number, whole in enumerate(wholes))
        for column, whole in zip(columns, wholes, strict=True):
            if len(whole) == begin:
                raise DataError(f"{where}: {column} has no token of its own")
        if begin >= self.check.length:
            return None
        self.tally.cut += max(map(len, wholes)) > self.check.length
        answers = {f"{column}_ids": whole[begin:] for column, whole in zip(columns, wholes, strict=True)}
        return {"prompt_ids": prompt[:begin], **answers}

    def _prompt(self, row: Row, where: str) -> Example | None:
        """The row as it is, for the reward functions, as JSON: Arrow would make one type of a column's values."""
        prompt: Prompt = row["prompt"]
        if self._form and not isinstance(prompt, self._form):
            raise DataError(
                f"{where}: prompt is a {type(prompt).__name__}, and before a {self._form.__name__}; write all as turns"
            )
        self._form = type(prompt)
        ids = self._conversation({}, prompt, where, prompt=True).ids if isinstance(prompt, list) else self._text(prompt)
        if not ids:
            raise DataError(f"{where}: prompt has no token; write one or remove the row")
        if len(ids) > self.check.length:
            return None
        self.tally.columns |= dict.fromkeys(row)
        return {"row": json.dumps(row)}

    # --- what they share ---

    def _chat(self) -> Chat:
        return chat_of(self.tokenizer)

    def _conversation(self, row: Row, turns: list[Any], where: str, **how: Any) -> Conversation:
        self.tally.keys.update(key for turn in turns for key in turn if key not in self._read_keys)
        arguments = row.get("chat_template_kwargs")
        return self._chat().encode(turns, where, tools=row.get("tools"), arguments=arguments, **how)

    def _text(self, text: str, *, ending: bool = False) -> list[int]:
        """Text as the tokenizer reads it, special tokens too: whoever writes whole texts writes those."""
        end = self.tokenizer.eos_token
        if ending and not text.endswith(end):
            text += end
        ids: list[int] = self.tokenizer(text, verbose=False)["input_ids"]
        return ids

    def _shared(self, prompt: list[int], whole: list[int], *, count: bool = True) -> int:
        """How many tokens of the prompt the whole begins with: a token may grow over the border."""
        shared = next((n for n, (one, other) in enumerate(zip(prompt, whole, strict=False)) if one != other), None)
        shared = min(len(prompt), len(whole)) if shared is None else shared
        self.tally.merged += count and shared < len(prompt)
        return shared

    def _why(self) -> str:
        """Why a row is left out."""
        return {
            "sft": f"the first {self.check.length} tokens have nothing of an answer",
            "rewardModel": f"an answer with its prompt has more than {self.check.length} tokens",
            "dpo": f"the prompt fills {self.check.length} tokens",
            "kto": f"the prompt fills {self.check.length} tokens",
        }.get(self.check.kind, f"the prompt has more than {self.check.length} tokens")

    # --- what is no failure and yet may surprise ---

    def notices(self) -> list[Notice]:
        """After all have been read."""
        tally, check, chosen = self.tally, self.check, self.held_out()
        learned = int((~chosen).sum())
        found = []
        if tally.too_long:
            said = f"{tally.too_long} of {tally.rows} rows are left out: {self._why()}"
            found.append(("RowsDropped", f"{said} ({check.length_field})"))
        if tally.cut:
            said = (
                f"{tally.cut} of {tally.rows} rows are longer than {check.length} tokens and lose the end of an answer"
            )
            found.append(("AnswersCutOff", f"{said} ({check.length_field}); no end is learned from them"))
        if tally.merged:
            said = (
                f"in {tally.merged} of {tally.rows} rows the prompt's last token and the answer's first grow together"
            )
            found.append(("PromptsMerged", f"{said}: end prompts without a space and begin answers with it"))
        if learned < check.rows_per_step:
            said = f"{learned} rows to train on are fewer than the {check.rows_per_step} of a step"
            found.append(("FewRows", f"{said}; add rows, or lower globalBatchSize"))
        if check.validation_fraction > 0 and not chosen.any():
            said = f"none of {len(chosen)} rows is held out, because all have the same prompt"
            found.append(("NothingHeldOut", f"{said}; there are no held-out figures: add rows with other prompts"))
        if tally.unread:
            found.append(
                ("ColumnsUnread", f"the stage reads none of the columns {', '.join(sorted(tally.unread)[:20])}")
            )
        if keys := [key for key in sorted(tally.keys) if key not in str(self.tokenizer.chat_template)]:
            found.append(("KeysUnread", f"the chat template reads none of the turns' keys {', '.join(keys[:20])}"))
        if len(tally.labels) == 1:
            found.append(
                (
                    "OneLabel",
                    f"every answer is {'good' if True in tally.labels else 'bad'}: there is nothing to compare",
                )
            )
        if check.kind == "kto" and learned % check.micro_batch_size == 1:
            found.append(
                ("OddRows", f"of {learned} rows the last is alone in its micro-batch, with no other to compare")
            )
        if check.kind == "sft" and self.tokenizer.chat_template and self._chat().turn.end is None:
            found.append(
                ("NoEndOfTurn", "the chat template ends no turn by a special token, so none tells the model to stop")
            )
        return [Notice(reason=reason, message=f"{check.field}: {message}") for reason, message in found]


def refuse_few_prompts(check: DatasetCheck, learned: int, held_out: int) -> None:
    """Raises DataError where TRL's sampler would find no whole step of prompts, and so make none."""
    if check.kind == "grpo" and learned < check.rows_per_step:
        raise DataError(
            f"{check.field}: {learned} prompts are left to train on ({held_out} are held out), and a step takes "
            f"{check.rows_per_step} (globalBatchSize / numGenerations): add prompts, or lower globalBatchSize or the "
            "dataset's validationFraction"
        )
