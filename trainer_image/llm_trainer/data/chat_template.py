"""How a conversation becomes text, fixed when the tokenizer is trained.

An assistant's turn ends with the end-of-text token, the one that ends documents in pretraining: the model has learned
it, and whoever generates (transformers, vLLM) stops there without being told of another token.
`{% generation %}` marks what the assistant says, so that the loss can be on that alone.
"""

ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- '<|assistant|>' -}}
{%- generation -%}{{- message['content'] + eos_token -}}{%- endgeneration -%}
{%- elif message['role'] in ['system', 'user'] -%}
{{- '<|' + message['role'] + '|>' + message['content'] -}}
{%- else -%}
{{- raise_exception("a message's role must be system, user or assistant, not " + message['role']) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""
