import json
from pathlib import Path

import pytest
from demo.phrases import LANGUAGES, Kind
from demo.questions import (
    ANSWER_BYTES,
    Pair,
    Section,
    build_questions,
    heading_kind,
    make_pairs,
    read_sections,
    section_pairs,
    short_answer,
    split,
)


def office(heading: str, *paragraphs: str, title: str | None = None, program: str = "scalc") -> Section:
    return Section(f"libreoffice-help/{program}/01/page", title or heading, 1, heading, list(paragraphs))


def manual(heading: str, *paragraphs: str) -> Section:
    return Section("debian-handbook/page", heading, 2, heading, list(paragraphs))


def ask(section: Section, language: str) -> list[tuple[str, str, str]]:
    return [(pair.kind.value, pair.question, pair.answer) for pair in section_pairs(section, language)]


def test_reads_sections_without_program_text() -> None:
    documents = [
        {
            "id": "w/p#a",
            "title": "Page",
            "text": "# Page\n\nFirst.\n\n    # not a heading\n\n## Empty\n\n## Part\n\nSecond.",
        },
        {"id": "w/p#b", "title": "Later", "text": "## Later\n\nThird."},
    ]
    sections = list(read_sections(documents))
    assert [(s.page, s.page_title, s.level, s.heading, s.paragraphs) for s in sections] == [
        ("w/p", "Page", 1, "Page", ["First."]),
        ("w/p", "Page", 2, "Part", ["Second."]),
        ("w/p", "Page", 2, "Later", ["Third."]),
    ]


@pytest.mark.parametrize(
    ("language", "paragraph", "answer"),
    [
        (
            "en",
            "It keeps the list of packages. It is a file in a folder. It is rather big.",
            "It keeps the list of packages. It is a file in a folder.",
        ),
        ("en", "Tools, e.g. APT, read the index. See the manual.", "Tools, e.g. APT, read the index."),
        ("en", "Run the following commands as root:", None),
        ("en", "The options are shown below.", None),
        ("en", "- a list item that is long enough.", None),
        ("en", "A long sentence " + "and more " * 40 + "ends.", None),
        (
            "ja",
            "一覧を保つファイルです。起動のたびに読まれます。次の節で述べます。",
            "一覧を保つファイルです。起動のたびに読まれます。",
        ),
        ("ja", "詳しくは以下を参照してください。", None),
        ("ja", "見出しだけの短い文", None),
    ],
)
def test_answers_with_whole_sentences_that_stand_alone(language: str, paragraph: str, answer: str | None) -> None:
    assert short_answer(paragraph, LANGUAGES[language]) == answer


def test_gives_an_english_answer_its_subject() -> None:
    [pair] = ask(office("ABS", "Returns the absolute value of a number."), "en")
    assert pair == ("function", pair[1], "ABS returns the absolute value of a number.")
    assert pair[1] in {"What does the function ABS do in LibreOffice Calc?", "What is ABS for in LibreOffice Calc?"}


def test_asks_where_a_command_is() -> None:
    pairs = ask(office("行の区切り", "選択したセルの上に区切りを挿入します。", "→ シート - 区切りを選択します。"), "ja")
    assert [(kind, answer) for kind, _, answer in pairs] == [
        ("command", "選択したセルの上に区切りを挿入します。"),
        ("access", "シート - 区切りを選択します。"),
    ]


@pytest.mark.parametrize(
    ("section", "language", "kind"),
    [
        (manual("What is a package manager?", "It keeps track of software."), "en", Kind.QUESTION),
        (office("Width", "Specifies the width of a column.", title="Columns"), "en", Kind.DETAIL),
        (office("Margins", "Enter the margins that you want."), "en", Kind.SECTION),
        (manual("Filesystems", "A filesystem keeps files on a disk."), "en", Kind.SECTION),
        (manual("Quotas", "Some users need much space on a disk."), "en", None),
        (manual("カーネルの設定", "その後、文書を確認してください。"), "ja", None),
    ],
)
def test_asks_by_a_heading_only_what_the_answer_is_about(section: Section, language: str, kind: Kind | None) -> None:
    assert heading_kind(section, section.paragraphs[0], LANGUAGES[language]) is kind


@pytest.mark.parametrize(
    ("language", "sentence", "question"),
    [
        ("en", "A meta-package is an empty package that depends on others.", "a meta-package"),
        ("en", "This is a file that holds names.", None),
        ("en", "Technically this is a noun phrase.", None),
        ("ja", "プロセスとはプログラムの実行中インスタンスです。", "プロセス"),
        ("ja", "フェードアウトが使えるのは LibreOffice Draw だけです。", None),
    ],
)
def test_finds_definitions(language: str, sentence: str, question: str | None) -> None:
    found = [q for kind, q, _ in ask(manual("見出し", "x", sentence), language) if kind == "definition"]
    assert len(found) == (question is not None)
    if question:
        assert question in found[0]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two languages, a hundred pages, and an answer that comes twice."""
    texts = {
        "en": (
            "# Command {0}",
            "Opens the dialog of number {0} in the window.",
            "# Copy {0}",
            "Copies the selected cells.",
        ),
        "ja": ("# 命令 {0}", "番号 {0} のダイアログを開きます。", "# 複写 {0}", "選択したセルを複写します。"),
    }
    files = []
    for language, parts in texts.items():
        rows = [
            {"id": f"libreoffice-help/scalc/{n}#a", "title": f"{n}", "text": "\n\n".join(parts).format(n)}
            for n in range(100)
        ]
        file = tmp_path / f"office-{language}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files.append({"file": file.name, "language": language})
    (tmp_path / "sources.json").write_text(json.dumps({"files": files}))
    return tmp_path


def test_no_question_and_no_answer_comes_twice(corpus: Path) -> None:
    pairs = make_pairs(corpus)
    assert len(pairs) == len({pair.question for pair in pairs}) == len({pair.answer for pair in pairs})
    assert sum(pair.language == "ja" for pair in pairs) == 101
    assert max(len(pair.answer.encode()) for pair in pairs) <= ANSWER_BYTES + 30


def test_a_page_is_held_out_in_both_languages_or_in_none(corpus: Path) -> None:
    train, held_out = split(make_pairs(corpus))
    assert held_out
    assert len(train) > 10 * len(held_out)
    assert not {pair.page for pair in train} & {pair.page for pair in held_out}
    assert {pair.language for pair in held_out} == {"en", "ja"}


def test_the_split_of_a_pair_does_not_depend_on_the_others() -> None:
    pairs = [Pair(f"work/{n}", "en", Kind.SECTION, f"Question {n}?", f"Answer {n}.") for n in range(200)]
    held_out = split(pairs)[1]
    assert split(pairs[:100])[1] == [pair for pair in held_out if pair in pairs[:100]]


def test_writes_conversations_as_trl_reads_them(corpus: Path, tmp_path: Path) -> None:
    build_questions(corpus, tmp_path / "out")
    for name in ("questions-train.jsonl", "questions-heldout.jsonl"):
        for line in (tmp_path / "out" / name).read_text().splitlines():
            messages = json.loads(line)["messages"]
            assert [message["role"] for message in messages] == ["user", "assistant"]
            assert all(message["content"] for message in messages)


def test_the_japanese_part_is_written_once_more(corpus: Path, tmp_path: Path) -> None:
    build_questions(corpus, tmp_path / "out")
    every = (tmp_path / "out" / "questions-train.jsonl").read_text().splitlines()
    japanese = (tmp_path / "out" / "questions-train-ja.jsonl").read_text().splitlines()
    assert 0 < len(japanese) < len(every)
    assert japanese == [line for line in every if not json.loads(line)["messages"][1]["content"].isascii()]
