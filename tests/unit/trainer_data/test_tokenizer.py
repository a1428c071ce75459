from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerBase

from llm_trainer.data.tokenizer import encode, folder_sha256, load_tokenizer, train_tokenizer
from llm_trainer.runtime.errors import ConfigurationError

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
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (tmp_path / "tokenizer.json").write_text('{"version": "9"}')
    with pytest.raises(ConfigurationError, match=r"spec\.tokenizer\.uri: transformers can't load a tokenizer"):
        load_tokenizer(tmp_path, "spec.tokenizer.uri")
