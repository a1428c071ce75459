"""What must hold of a serving's spec beyond its types: its names, arguments, chat template and rollout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from llm_operator.api.pod_validation import union_problems
from llm_operator.api.serving import LLMServingSpec
from llm_operator.api.vllm_arguments import argument_problems


def answer_problems(spec: LLMServingSpec) -> Iterator[str]:
    yield from served_name_problems(spec)
    has_template = spec.chat_template is not None
    yield from argument_problems(spec.extra_arguments, "spec.extraArguments", chat_template=has_template)
    yield from chat_template_problems(spec)
    yield from strategy_problems(spec)


def served_name_problems(spec: LLMServingSpec) -> Iterator[str]:
    """Of the names that requests choose by; the default of the first, the LLMServing's own, is not known here."""
    path, main = "spec.servedModelAliases", spec.served_model_name
    for name, count in Counter(spec.served_model_aliases).items():
        if count > 1:
            yield f"{path}: {name!r} is there {count} times; leave one"
        if name == main:
            yield f"{path}: {name!r} is spec.servedModelName already; remove it"
        if name in {adapter.name for adapter in spec.adapters}:
            yield f"spec.adapters: an adapter can't have the model's name {name!r}; rename it"


def chat_template_problems(spec: LLMServingSpec) -> Iterator[str]:
    template, path = spec.chat_template, "spec.chatTemplate"
    if template is None:
        return
    yield from union_problems(path, template)
    if template.text is not None and "{" not in template.text:
        yield f"{path}.text: has no '{{', so that vLLM takes it for a file's name; write a Jinja template"


def strategy_problems(spec: LLMServingSpec) -> Iterator[str]:
    rolling, path = spec.strategy.rolling_update, "spec.strategy.rollingUpdate"
    if rolling and spec.strategy.type == "Recreate":
        yield f"{path}: is of no use with type Recreate; leave it out"
    elif rolling and rolling.max_surge + rolling.max_unavailable == 0:
        yield f"{path}: maxSurge and maxUnavailable can't both be 0; set one of them"
