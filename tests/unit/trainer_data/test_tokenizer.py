from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llm_trainer.data import tokenizer as module
from llm_trainer.data.tokenizer import encode, folder_sha256, load_tokenizer, train_tokenizer
from llm_trainer.runtime.errors import ConfigurationError, DataError

TEXTS = ["The quick brown fox.", "いろはにほへと、ちりぬるを。", "def f(x):\n    return x + 10\n", "café 2024年1月"] * 4


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(iter(TEXTS), 512)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["<|endoftext|>", "a<|user|>b"]), min_size=1
    )
)
def test_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> None:
    ids = encode(tokenizer, texts)
    assert [tokenizer.decode(document) for document in ids] == texts
    assert tokenizer.eos_token_id not in {token for document in ids for token in document}


def metaspace() -> PreTrainedTokenizerBase:
    """As those that SentencePiece has made: a space before the text, and words that are not split off before."""
    made = FastTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)])
    made.train_from_iterator(TEXTS * 4, trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "</s>"]))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")


def lower_case() -> PreTrainedTokenizerBase:
    """As that of BERT, whose normalizer changes the text's length."""
    made = FastTokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(TEXTS * 4, trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[SEP]"]))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="[SEP]", unk_token="[UNK]")


WORDS = st.lists(
    st.sampled_from(["The", " quick", " fox.", "いろは", "にほへと、", "\n", "    return", " x", "café", "10", "😀"]),
    min_size=1, max_size=200,
)  # fmt: skip


@pytest.mark.parametrize("make", [None, metaspace, lower_case])
@given(words=WORDS)
def test_a_long_text_has_the_ids_that_it_has_as_a_whole(
    make: Callable[[], PreTrainedTokenizerBase] | None, words: list[str], tokenizer: PreTrainedTokenizerBase
) -> None:
    used, text = made_once(make) if make else tokenizer, "".join(words)
    whole = encode(used, [text])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "WINDOW", 100)
        patched.setattr(module, "OVERLAP", 40)
        assert [list(ids) for ids in encode(used, [text])] == whole


made_once = cache(lambda make: make())


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30), times=st.integers(1, 40))
def test_any_long_text_survives(tokenizer: PreTrainedTokenizerBase, text: str, times: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "WINDOW", 50)
        patched.setattr(module, "OVERLAP", 10)
        long, short = encode(tokenizer, [text * times, text])
    assert tokenizer.decode(long) == text * times
    assert tokenizer.decode(short) == text


@given(text=st.text())
def test_pieces_are_the_text_and_end_where_words_do(text: str) -> None:
    words = pre_tokenizers.Split(Regex(module._WORDS), behavior="isolated")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "LONGEST_WORD", 8)
        made = list(module.pieces(text))
    assert "".join(made) == text
    assert max(map(len, made)) <= 8
    text = "".join(word * 3 for word in ("ab", " c", "、い", ". D", "\r\n ")) * 3
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "LONGEST_WORD", 16)
        parts = [word for piece in module.pieces(text) for word, _ in words.pre_tokenize_str(piece)]
    assert parts == [word for word, _ in words.pre_tokenize_str(text)]


def test_what_a_long_line_costs_grows_with_its_length_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    """In what is given to the tokenizer at a time, by which its time and memory go."""
    given_at_a_time: list[int] = []

    class Watched:
        is_fast = True

        def __call__(self, texts: str, **named: Any) -> Any:
            given_at_a_time.append(len(texts))
            return tokenizer(texts, **named)

    for text in ("word " * 60_000, "ACGT" * 75_000, "漢" * 300_000, " " * 300_000, "=" * 300_000):
        (ids,) = encode(Watched(), [text])
        assert tokenizer.decode(ids) == text
        assert max(given_at_a_time) <= module.WINDOW
        assert sum(given_at_a_time) < 1.1 * len(text)
        given_at_a_time.clear()
        assert max(map(len, module.pieces(text))) <= module.LONGEST_WORD


def test_special_tokens_are_fixed_and_differ(tokenizer: PreTrainedTokenizerBase) -> None:
    special = ["<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
    assert tokenizer.convert_tokens_to_ids(special) == [0, 1, 2, 3, 4]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1)
    assert len(tokenizer) <= 512


def test_the_chat_template_marks_what_the_assistant_says(tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "いろは"},
        {"role": "assistant", "content": " A\n"},
        {"role": "user", "content": "more"},
        {"role": "assistant", "content": "B"},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert rendered == "<|system|>S<|user|>いろは<|assistant|> A\n<|endoftext|><|user|>more<|assistant|>B<|endoftext|>"
    tokens = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    learned = [token for token, mask in zip(tokens["input_ids"], tokens["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(learned) == " A\n<|endoftext|>B<|endoftext|>"
    prompt = tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert rendered.startswith(prompt)
    with pytest.raises(Exception, match="must be system, user or assistant, not robot"):
        tokenizer.apply_chat_template([{"role": "robot", "content": ""}], tokenize=False)


def test_a_saved_tokenizer_loads_beside_a_model(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """AutoTokenizer chooses by the model's config too: a llama folder must not get LlamaTokenizer's splitting."""
    tokenizer.save_pretrained(tmp_path)
    LlamaConfig(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    for loaded in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert encode(loaded, TEXTS) == encode(tokenizer, TEXTS)
        assert loaded.chat_template == tokenizer.chat_template
        assert loaded.pad_token_id == tokenizer.pad_token_id


def test_training_again_in_another_process_gives_the_same_files(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path / "here")
    program = (
        "from llm_trainer.data.tokenizer import train_tokenizer\n"
        f"train_tokenizer(iter({TEXTS!r}), 512).save_pretrained({str(tmp_path / 'there')!r})"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert folder_sha256(tmp_path / "here") == folder_sha256(tmp_path / "there")


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"spec\.tokenizer\.uri: there is no folder .*/missing"):
        load_tokenizer(tmp_path / "missing", "spec.tokenizer.uri")
    with pytest.raises(ConfigurationError, match=r"spec\.tokenizer\.uri: transformers can't load a tokenizer"):
        load_tokenizer(tmp_path, "spec.tokenizer.uri")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 1}', "[" * 100_000])
def test_a_tokenizer_that_is_damaged(tokenizer: PreTrainedTokenizerBase, tmp_path: Path, content: str) -> None:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"spec\.tokenizer\.uri: transformers can't load a tokenizer"):
        load_tokenizer(tmp_path, "spec.tokenizer.uri")


def test_a_tokenizer_that_is_a_git_lfs_pointer(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(DataError, match=r"tokenizer.json is a Git LFS pointer"):
        load_tokenizer(tmp_path, "spec.tokenizer.uri")
