"""Makes question-and-answer pairs from the demo's corpus, for supervised fine-tuning.

    python -m demo.questions CORPUS_FOLDER OUT_FOLDER

writes `questions-train.jsonl` and `questions-heldout.jsonl`, one {"messages": [user, assistant]} a line as TRL reads
it, and the Japanese part of the first as `questions-train-ja.jsonl`. An answer is one or two whole sentences of a
document; its question follows from the heading above. The rules are in docs/demo_corpus.md.
"""

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from demo.corpus import size
from demo.phrases import LANGUAGES, PROGRAMS, WITHOUT_SUBJECT, Kind, Language

ANSWER_BYTES = 240  # about 60 tokens of a byte-level BPE of 8,192 trained on the corpus
HEADING_BYTES = range(3, 91)
HEADING_COUNT = 3  # a heading that comes more often, such as "Properties", says too little
HELD_OUT = 0.06  # of the pages; a page's pairs, in both languages, are all held out or all in training

_FUNCTION = re.compile(r"^[A-Z][A-Z0-9.]{1,15}(?:_[A-Z0-9]+)?$")
_HEADING = re.compile(r"(#{1,6}) (.+)")


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its answer."""

    page: str  # work/page, the same in every language
    language: str
    kind: Kind
    question: str
    answer: str


@dataclass(slots=True)
class Section:
    """A heading of a document, and the paragraphs under it."""

    page: str
    page_title: str
    level: int
    heading: str
    paragraphs: list[str] = field(default_factory=list)

    @property
    def work(self) -> str:
        return self.page.split("/")[0]


def read_sections(documents: Iterable[Mapping[str, str]]) -> Iterator[Section]:
    """The sections of documents that come in the order of their pages.

    Args:
        documents: lines of the corpus, {"id", "title", "text"}.

    """
    titles: dict[str, str] = {}
    for document in documents:
        page = document["id"].partition("#")[0]
        title = titles.setdefault(page, document["title"])
        section = Section(page, title, 0, "")
        for paragraph in document["text"].split("\n\n"):
            if heading := _HEADING.fullmatch(paragraph):
                if section.paragraphs:
                    yield section
                section = Section(page, title, len(heading[1]), heading[2])
            elif not paragraph.startswith("    "):
                section.paragraphs.append(paragraph)
        if section.paragraphs:
            yield section


def short_answer(paragraph: str, language: Language) -> str | None:
    """The paragraph's first sentence, and its second where there is room for it; none if they would not stand alone."""
    answer = ""
    for sentence in language.between_sentences.split(paragraph)[:2]:
        longer = answer + (language.joint if answer else "") + sentence
        whole = language.sentence.match(sentence) and not language.leads_on.search(sentence)
        if not whole or size(longer) > ANSWER_BYTES or (answer and WITHOUT_SUBJECT.match(sentence)):
            break
        answer = longer
    return answer or None


def section_pairs(section: Section, code: str) -> Iterator[Pair]:
    """The pairs that a section gives: by its heading, its place in the menus, and the definitions in it."""
    language = LANGUAGES[code]
    answer = short_answer(section.paragraphs[0], language)
    if answer and size(section.heading) in HEADING_BYTES and (kind := heading_kind(section, answer, language)):
        if kind in {Kind.FUNCTION, Kind.COMMAND, Kind.DETAIL} and WITHOUT_SUBJECT.match(answer):
            answer = f"{section.heading} {answer[0].lower()}{answer[1:]}"
        yield _pair(section, code, kind, section.heading, answer)
    for paragraph in section.paragraphs:
        place = short_answer(paragraph.removeprefix("→ "), language)
        if place and section.level == 1 and paragraph.startswith("→ ") and language.access.search(place):
            yield _pair(section, code, Kind.ACCESS, section.heading, place)
            break
    if "/scalc/" in section.page or "/sbasic/" in section.page:
        return  # their definitions are of parameters, which mean nothing without the function
    for paragraph in section.paragraphs:
        sentence = language.between_sentences.split(paragraph)[0]
        match = language.definition.match(sentence)
        definition = short_answer(sentence, language)
        if match and definition and not language.no_topic.search(match["topic"]):
            topic = re.sub(r"^(?:The|An?) ", lambda article: article[0].lower(), match["topic"])
            yield _pair(section, code, Kind.DEFINITION, topic, definition)


def heading_kind(section: Section, answer: str, language: Language) -> Kind | None:
    """What to ask by a section's heading; none if the answer has nothing to do with it."""
    if section.heading.endswith(("?", "？")):
        return Kind.QUESTION
    if section.work == "libreoffice-help" and language.does.match(answer):
        if "/scalc/" in section.page and _FUNCTION.match(section.heading):
            return Kind.FUNCTION
        return Kind.COMMAND if section.heading == section.page_title else Kind.DETAIL
    words = language.word.findall(section.heading)
    return Kind.SECTION if any(word[:6].lower() in answer.lower() for word in words) else None


def _pair(section: Section, code: str, kind: Kind, topic: str, answer: str) -> Pair:
    language = LANGUAGES[code]
    place = language.works.get(section.work)
    if place is None:
        program = PROGRAMS.get(section.page.split("/")[1], "LibreOffice")
        place = language.help.format(program=program) if kind is Kind.SECTION else program
    wordings = language.questions[kind]
    wording = wordings[digest(topic + section.page) % len(wordings)]
    question = wording.format(topic=topic, place=place, page=section.page_title)
    return Pair(section.page, code, kind, question, answer)


def digest(text: str) -> int:
    """64 bits of a text's hash: chance that is the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def make_pairs(corpus: Path) -> list[Pair]:
    """The pairs of a whole corpus: no question twice, no answer twice.

    Raises:
        FileNotFoundError: the folder holds no corpus.

    """
    pairs: list[Pair] = []
    for entry in json.loads((corpus / "sources.json").read_text())["files"]:
        lines = (corpus / entry["file"]).read_text().splitlines()
        sections = list(read_sections(json.loads(line) for line in lines))
        often = Counter(section.heading for section in sections)
        for section in sections:
            if often[section.heading] <= HEADING_COUNT:
                pairs.extend(section_pairs(section, entry["language"]))
    return _distinct(pairs)


def _distinct(pairs: Iterable[Pair]) -> list[Pair]:
    questions, answers, kept = set(), set(), []
    for pair in pairs:
        question, answer = pair.question.casefold(), pair.answer.casefold()
        if question not in questions and answer not in answers:
            kept.append(pair)
        questions.add(question)
        answers.add(answer)
    return kept


def split(pairs: Iterable[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Training and held-out pairs, by page; each in an order that mixes languages and works."""
    train: list[Pair] = []
    held_out: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: digest(pair.question)):
        (held_out if digest(pair.page) < HELD_OUT * 2**64 else train).append(pair)
    return train, held_out


def write_messages(path: Path, pairs: Iterable[Pair]) -> None:
    """One conversation a line, as TRL's trainers read it."""
    with path.open("w") as file:
        for pair in pairs:
            messages = [{"role": "user", "content": pair.question}, {"role": "assistant", "content": pair.answer}]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def build_questions(corpus: Path, out: Path) -> None:
    """Writes the questions' files into the folder `out`, and prints their sizes."""
    out.mkdir(parents=True, exist_ok=True)
    train, held_out = split(make_pairs(corpus))
    japanese = [pair for pair in train if pair.language == "ja"]
    for part, pairs in (("train", train), ("train-ja", japanese), ("heldout", held_out)):
        name = f"questions-{part}.jsonl"
        write_messages(out / name, pairs)
        counts = Counter(pair.language for pair in pairs)
        by_language = ", ".join(f"{counts[code]} {code}" for code in sorted(counts))
        print(f"{name:<24} {len(pairs):5} pairs ({by_language})")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.questions", description="Make question-and-answer pairs.")
    parser.add_argument("corpus", type=Path, metavar="CORPUS_FOLDER")
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER")
    arguments = parser.parse_args()
    try:
        build_questions(arguments.corpus, arguments.out)
    except FileNotFoundError as error:
        sys.exit(f"demo.questions: {error.filename} is missing: make the corpus with `python -m demo.corpus` first")


if __name__ == "__main__":
    main()
