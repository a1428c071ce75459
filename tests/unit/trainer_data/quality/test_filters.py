"""Each threshold of each filter has a text that passes it and one that doesn't, in English and Japanese."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trainer.config import LANGUAGES, Quality
from llm_trainer.data.quality.filters import edited, filters_of, judged
from llm_trainer.data.quality.language import _identifier, language_share
from llm_trainer.data.quality.repetition import DUPLICATE, TOP, ngram_measures
from llm_trainer.data.quality.rules import gopher_measures, japanese_measures
from llm_trainer.data.quality.text import Text
from llm_trainer.data.words import words_of
from llm_trainer.runtime.errors import DataError

ENGLISH = """The layers of an image are like sheets that lie on each other, and each of them can be moved alone.
To hide a layer, click on the eye beside its name; the layer stays where it is and comes back with another click.
Some people keep text on a layer of its own, because words change more often than the photograph below them.
When the work is done, all of the layers can be merged into one, which makes the file smaller and easier to send.
"""
JAPANESE = """画像のレイヤーは重ねた紙のようなもので、それぞれを別々に動かすことができます。
レイヤーを隠すには、名前の横にある目の印をクリックします。もう一度クリックすると元に戻ります。
文字は写真よりもよく変わるので、専用のレイヤーに置いておく人が多いようです。
作業が終わったら、すべてのレイヤーを一つに統合すると、ファイルが小さくなり送りやすくなります。
"""
PLAIN: dict[str, dict[str, object]] = {
    name: {} for name in ("personalData", "language", "gopher", "c4", "repetition", "japanese")
}


def reason(text: str, tag: str, **settings: Any) -> str | None:
    """The filter and threshold that drop it."""
    filters = filters_of(Quality.model_validate(settings or PLAIN), "/nowhere")
    for name, _, verdict in judged(filters, Text(text, tag)):
        if verdict.reason:
            return f"{name}.{verdict.reason}"
    return None


@pytest.mark.parametrize(("text", "language"), [(ENGLISH, "en"), (JAPANESE, "ja")])
def test_good_prose_stays_as_it_is(text: str, language: str) -> None:
    assert reason(text, language) is None
    assert edited(Quality.model_validate(PLAIN), Text(text, language)).text.strip() == text.strip()


BAD: list[tuple[str, str, str]] = [
    ("gopher.minimumWords", "en", "Too short a text."),
    ("gopher.minimumWords", "ja", "短い文です。"),
    ("gopher.maximumWords", "en", ENGLISH * 2000),
    ("gopher.maximumWords", "ja", JAPANESE * 2000),
    ("gopher.minimumMeanWordLength", "en", "a b c d e the to be of " * 20),
    ("gopher.maximumMeanWordLength", "en", "the to " + "incomprehensibilities " * 60),
    ("gopher.maximumSymbolRatio", "en", ENGLISH + "#tag " * 30),
    ("gopher.maximumSymbolRatio", "ja", JAPANESE + "…" * 60),
    ("gopher.maximumBulletLines", "en", "".join(f"- {line}\n" for line in ENGLISH.splitlines())),
    ("gopher.maximumBulletLines", "ja", "".join(f"・{line}\n" for line in JAPANESE.splitlines())),
    ("gopher.maximumEllipsisLines", "en", "".join(f"{line.rstrip('.')}...\n" for line in ENGLISH.splitlines())),
    ("gopher.maximumEllipsisLines", "ja", "".join(f"{line.rstrip('。')}…\n" for line in JAPANESE.splitlines())),
    ("gopher.minimumAlphabeticWords", "en", ENGLISH + "| --- 12 " * 20),
    ("gopher.minimumAlphabeticWords", "ja", JAPANESE + "■ 12 " * 40),
    ("gopher.minimumStopWords", "en", "buy cheap shoes online now free shipping today " * 10),
    ("gopher.minimumStopWords", "ja", "格安靴通販送料無料本日限定" * 10),
    ("c4.curlyBrackets", "en", ENGLISH + "int main() { return 0; }"),
    ("c4.loremIpsum", "en", ENGLISH + "Lorem ipsum dolor sit amet."),
    ("c4.minimumSentences", "en", "Home\nAbout us\nContact\nThis is the only sentence of the page."),
    ("c4.minimumSentences", "ja", "ホーム\n会社概要\nお問い合わせ\nこのページの文はこれだけしかありません。"),
    ("repetition.maximumDuplicateLines", "en", ENGLISH + "Click here to read more of this.\n" * 4),
    ("repetition.maximumDuplicateParagraphs", "en", ENGLISH + "\n\nRead on." * 2),
    ("repetition.maximumDuplicateLineCharacters", "en", ENGLISH + max(ENGLISH.splitlines(), key=len)),
    ("repetition.maximumDuplicateLineCharacters", "ja", JAPANESE + JAPANESE.splitlines()[1] + "\n"),
    ("repetition.maximumTopNgrams[0]", "en", "very good " * 60),
    ("repetition.maximumTopNgrams[0]", "ja", "とても良い。" * 60),
    ("japanese.minimumHiragana", "ja", "株式会社東京都千代田区丸之内一丁目営業時間午前九時午後五時定休日土曜日曜祝日"),
    ("japanese.maximumKatakana", "ja", "カメラやレンズやバッテリーやメモリーカードはこのホームページにあります。"),
    ("japanese.minimumJapanese", "ja", "これは This text is mostly English with a few words of another です。"),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "language", "text"), BAD, ids=[f"{name} {lang}" for name, lang, _ in BAD])
def test_what_a_threshold_drops(expected: str, language: str, text: str) -> None:
    assert reason(text, language, **{expected.split(".")[0]: {}}) == expected


def test_every_threshold_of_these_filters_has_a_case() -> None:
    cases = {name.split("[")[0] for name, _, _ in BAD}
    for filter_name in ("gopher", "repetition", "japanese"):
        settings = Quality.model_validate({filter_name: {}}).model_dump(by_alias=True, exclude_none=True)[filter_name]
        missing = {f"{filter_name}.{name}" for name in settings} - cases
        assert missing <= {
            # where paragraphs or long runs repeat, another threshold is passed before
            "repetition.maximumDuplicateParagraphCharacters",
            "repetition.maximumDuplicateNgrams",
        }, missing


@pytest.mark.parametrize("text", [ENGLISH, JAPANESE])
def test_a_run_that_comes_twice_is_measured(text: str) -> None:
    """Of a text that is written twice half of the words came before, less those at the seam."""
    words = words_of(text.replace("\n", " ") + text.replace("\n", " "))
    assert ngram_measures(words)[1][0] == pytest.approx(0.5, abs=0.08)
    assert ngram_measures(words_of(text))[1][0] < 0.1


def test_the_most_frequent_run_counts_its_characters_once() -> None:
    def top(text: str) -> float:
        return ngram_measures(words_of(text))[0][0]

    assert top("a a a a a a") == pytest.approx(1)
    assert top("aa bb cc aa bb dd") == pytest.approx(8 / 12)
    assert top("a b c d e f") == 0
    assert top("") == 0


@given(st.lists(st.sampled_from(["aa", "b", "cccc", "日", "本"]), max_size=60))
def test_runs_are_those_that_a_count_of_words_finds(parts: list[str]) -> None:
    """Each length by itself, as the paper has it, without what is known of a shorter one."""
    words = words_of(" ".join(parts))
    top, duplicate = ngram_measures(words_of(" ".join(parts)))
    for length, found in (*zip(TOP, top, strict=True), *zip(DUPLICATE, duplicate, strict=True)):
        size = words.tokens(length)
        runs = [tuple(words.hashes[at : at + size].tolist()) for at in range(len(words.hashes) - size + 1)]
        sizes = (words.ends - words.starts).tolist()

        def share(places: list[int], size: int = size, sizes: list[int] = sizes) -> float:
            inside = {token for place in places for token in range(place, place + size)}
            return sum(sizes[token] for token in inside) / max(1, sum(sizes))

        counts = Counter(runs)
        most = max(counts.values(), default=0)
        if length in DUPLICATE:
            assert found == pytest.approx(share([at for at, run in enumerate(runs) if run in runs[:at]]))
        elif most < 2:
            assert found == 0
        else:
            of = {run: [at for at, each in enumerate(runs) if each == run] for run in counts if counts[run] == most}
            longest = max(sum(sizes[places[0] : places[0] + size]) for places in of.values())
            worst = [share(places) for places in of.values() if sum(sizes[places[0] : places[0] + size]) == longest]
            assert any(found == pytest.approx(each) for each in worst)


def test_c4_takes_out_lines_that_are_no_sentences() -> None:
    text = f"Home | About | Contact\n{ENGLISH}This site uses cookies to make it work well.\nShort one.\n"
    kept = edited(Quality.model_validate({"c4": {}}), Text(text, "en")).text
    assert kept == ENGLISH.strip()
    text = f"ホーム＞製品＞一覧\n{JAPANESE}当サイトの利用規約をお読みください、お願いします。\n了解。\n"
    assert edited(Quality.model_validate({"c4": {}}), Text(text, "ja")).text == JAPANESE.strip()


def test_headings_of_markdown_are_no_hash_marks() -> None:
    assert gopher_measures(Text("## A heading\n" * 10 + "text", "en"))["symbol_ratio"] == 0


def test_stop_words_of_other_languages_are_not_asked_for() -> None:
    assert "stop_words" not in gopher_measures(Text("ein deutscher Text", "de"))
    assert gopher_measures(Text(JAPANESE))["stop_words"] in (3, 4, 5, 6, 7, 8), "by its kana"


def test_shares_of_an_empty_text_are_no_error() -> None:
    assert reason("!", "ja", japanese={}) == "japanese.minimumHiragana"
    assert japanese_measures(Text("", "ja")) == {"hiragana": 0, "katakana": 0, "japanese": 0}
    for measure in (gopher_measures(Text("")), gopher_measures(Text("。", "ja"))):
        assert measure["words"] == 0


class TestLanguage:
    def test_the_identifier_knows_what_the_configuration_says(self) -> None:
        labels = _identifier().labels
        known = set(labels() if callable(labels) else labels)
        assert known - {"zxx"} == LANGUAGES

    @pytest.mark.parametrize(("text", "right", "wrong"), [(ENGLISH, "en", "ja"), (JAPANESE, "ja", "zh")])
    def test_the_sources_language(self, text: str, right: str, wrong: str) -> None:
        assert reason(text, right, language={}) is None
        assert reason(text, wrong, language={}) == "language.minimumShare"

    def test_a_text_in_two_languages_has_shares(self) -> None:
        share, _ = language_share(Text(JAPANESE * 4 + ENGLISH * 2, "ja"))
        assert 0.2 < share < 0.8

    def test_figures_are_of_every_language(self) -> None:
        assert language_share(Text("12 34 56 " * 50, "ja")) == (1.0, "")

    def test_a_source_without_language_is_not_asked(self) -> None:
        assert reason(ENGLISH, "", language={}) is None


PERSONAL = [
    ("Write to jane.doe+list@mail.example.co.jp.", "Write to [EMAIL]."),
    ("連絡先はtaro@example.jpです。", "連絡先は[EMAIL]です。"),
    ("電話：０３－１２３４－５６７８まで", "電話：[PHONE]まで"),
    ("call +81 3-1234-5678 or (212) 555-0187", "call [PHONE] or [PHONE]"),
    ("090-1234-5678 09012345678", "[PHONE] [PHONE]"),
    ("電話03-1234-5678、IPは8.8.4.4です", "電話[PHONE]、IPは[IP]です"),
    ("server 8.8.4.4 and 2001:4860:4860::8888 answer", "server [IP] and [IP] answer"),
    ("local 192.168.0.1, 127.0.0.1, ::1 and fe80::1 stay", None),
    ("version 1.2.3 of 2026-11-26, 12:30:45, ISBN 978-4-00-310101-8", None),
    ("user@localhost and @handle and a@b", None),
    ("since 999.999.999.999 is no address", None),
]


@pytest.mark.parametrize(("text", "expected"), PERSONAL)
def test_personal_data(text: str, expected: str | None) -> None:
    assert edited(Quality.model_validate({"personalData": {}}), Text(text)).text == (expected or text)


def test_personal_data_that_is_not_asked_for_stays() -> None:
    quality = Quality.model_validate({"personalData": {"emails": False}})
    assert edited(quality, Text("a@example.com 8.8.4.4")).text == "a@example.com [IP]"


HOSTILE = ("a" * 300_000, "a@" * 150_000,
           "1." * 150_000, "1:" * 150_000, "0-" * 150_000, "(" * 300_000, "+1 " * 100_000,
           "\n" * 300_000, "#" * 300_000, "あ" * 300_000, "﷽" * 100_000, "e" + "\u0301" * 300_000, "." * 300_000,
           "! " * 150_000)  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:3]))
def test_no_text_takes_long(text: str) -> None:
    """The limit is for a machine under load: a pattern that goes back and forth takes hours."""
    reason(text, "en")
    edited(Quality.model_validate(PLAIN), Text(text, "ja"))


class TestDecontamination:
    @pytest.fixture
    def uri(self, volumes: Path, write_lines: Callable[[str, list[Any]], Path]) -> str:
        questions = [
            {"question": ENGLISH.splitlines()[0], "choices": ["yes", {"deep": [ENGLISH.splitlines()[1]]}]},
            {"question": JAPANESE.splitlines()[1], "answer": "eight words are enough to be found again"},
        ]
        write_lines("eval.jsonl", questions)
        return "pvc://corpus/eval.jsonl"

    def judge(self, volumes: Path, uri: str, text: str, language: str = "en") -> tuple[str | None, str]:
        quality = Quality.model_validate({"decontamination": {"uris": [uri]}})
        [(_, _, verdict)] = judged(filters_of(quality, str(volumes)), Text(text, language))
        return verdict.reason, verdict.detail

    @pytest.mark.parametrize(
        "quoted",
        [
            f"They say: {ENGLISH.splitlines()[0].upper()} And so on.",
            ENGLISH.splitlines()[1].replace(" ", "\n").replace(",", " --"),
            f"前書き。{JAPANESE.splitlines()[1]}後書き。",
            "In the end: eight words, are enough to be found again! Yes.",
        ],
    )
    def test_what_is_quoted_is_dropped(self, volumes: Path, uri: str, quoted: str) -> None:
        reason, detail = self.judge(volumes, uri, quoted)
        assert reason == "ngram"
        assert uri in detail

    @pytest.mark.parametrize(
        "other",
        [
            " ".join(ENGLISH.splitlines()[0].split()[:12]) + " but then it goes on in another way altogether",
            JAPANESE.splitlines()[2],
            "レイヤーを隠すには、別のやり方もあります。",
            "",
        ],
    )
    def test_what_is_not_quoted_stays(self, volumes: Path, uri: str, other: str) -> None:
        assert self.judge(volumes, uri, other)[0] is None

    def test_a_set_that_has_nothing_to_tell_by_is_refused(self, volumes: Path) -> None:
        (volumes / "corpus/short.jsonl").write_text(json.dumps({"q": "Why?"}))
        with pytest.raises(DataError, match=r"decontamination.uris\[0\].*no text of 8 words"):
            self.judge(volumes, "pvc://corpus/short.jsonl", "x")

    def test_a_set_that_is_not_there_is_refused(self, volumes: Path) -> None:
        with pytest.raises(DataError, match=r"decontamination.uris\[0\]: no file matches"):
            self.judge(volumes, "pvc://corpus/none.jsonl", "x")
