"""Chat templates in the forms of public model families, and tokenizers that have their special tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llm_trainer.data.tokenizer import train_tokenizer

TEXTS = ["one two three four five six seven eight nine ten user assistant system what is a list? a list is a row of it"]


@dataclass(frozen=True)
class Family:
    """`said` in the template is where its marks go: an assistant's words and the end of its turn."""

    template: str
    tokens: tuple[str, ...]
    end: str
    tail: str = ""
    system: bool = True

    @property
    def plain(self) -> str:
        return self.template.replace("[[", "").replace("]]", "")

    @property
    def marked(self) -> str:
        return self.template.replace("[[", "{% generation %}").replace("]]", "{% endgeneration %}")


PROMPTED = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "[[{{ m['content'] + '<|im_end|>' }}]]{{ '\n' }}{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}" + PROMPTED
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{% if m['role'] == 'assistant' %}[[{{ m['content'] | trim + '<|eot_id|>' }}]]{% else %}"
    "{{ m['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}[[{{ ' ' + m['content'] + eos_token }}]]{% endif %}"
    "{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' }}{% if m['role'] == 'assistant' %}"
    "[[{{ m['content'] | trim + '<end_of_turn>' }}]]{{ '\n' }}{% else %}{{ m['content'] | trim + '<end_of_turn>\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' }}{% if m['role'] == 'assistant' %}"
    "[[{{ m['content'] + '<|end|>' }}]]{{ '\n' }}{% else %}{{ m['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
QWEN25 = (
    "{% if tools %}{{ '<|im_start|>system\n# Tools\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% elif messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nHelp.<|im_end|>\n' }}"
    "{% endif %}{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}[[{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ '<tool_call>' }}{{ c.function | tojson }}{{ '</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>' }}]]{{ '\n' }}{% elif m.role == 'tool' %}"
    "{{ '<|im_start|>user\n<tool_response>' + m.content + '</tool_response><|im_end|>\n' }}{% else %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}" + PROMPTED
)
# Leaves out the reasoning of every answer but the last, as Qwen3 does.
QWEN3 = (
    "{% for m in messages %}{% set content = m.content %}{% if m.role == 'assistant' %}{% if not loop.last %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ '<|im_start|>assistant\n' }}"
    "[[{{ content + '<|im_end|>' }}]]{{ '\n' }}{% else %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{{ content + '<|im_end|>\n' }}{% endif %}{% endfor %}" + PROMPTED
)

IM = ("<|im_start|>", "<|im_end|>")
FAMILIES = {
    "chatml": Family(CHATML, IM, "<|im_end|>", "\n"),
    "llama-3": Family(LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|eot_id|>"),
    "mistral": Family(MISTRAL, ("[INST]", "[/INST]"), "<|endoftext|>", system=False),
    "gemma": Family(GEMMA, ("<start_of_turn>", "<end_of_turn>"), "<end_of_turn>", "\n", system=False),
    "phi": Family(PHI, ("<|end|>",), "<|end|>", "\n<|endoftext|>"),
    "qwen2.5": Family(QWEN25, IM, "<|im_end|>", "\n"),
    "qwen3": Family(QWEN3, IM, "<|im_end|>", "\n"),
}


def tokenizer_of(name: str, *, marked: bool = False) -> PreTrainedTokenizerBase:
    family = FAMILIES[name]
    return tokenizer_with(family.marked if marked else family.plain, family.tokens)


@lru_cache
def tokenizer_with(template: str, tokens: tuple[str, ...] = ()) -> PreTrainedTokenizerBase:
    tokenizer = train_tokenizer(iter(TEXTS), 400)
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)}, replace_extra_special_tokens=False)
    tokenizer.add_special_tokens({"bos_token": "<|begin|>"})
    tokenizer.chat_template = template
    return tokenizer


@lru_cache
def sentencepiece_like(scheme: str) -> PreTrainedTokenizerBase:
    """As Llama 2's and Mistral's: a mark in the place of blanks, also before a text's first word."""
    fast = FastTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    fast.decoder = decoders.Metaspace(prepend_scheme=scheme, split=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256))],
        show_progress=False,
    )
    fast.train_from_iterator([*TEXTS, "the mark of a text, and <more> /than it"] * 3, trainer)
    known = json.loads(fast.to_str())  # the trainer made special tokens of the bytes
    known["added_tokens"] = [token for token in known["added_tokens"] if not token["content"].startswith("<0x")]
    fast = FastTokenizer.from_str(json.dumps(known))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = MISTRAL.replace("[[", "").replace("]]", "")
    return tokenizer
