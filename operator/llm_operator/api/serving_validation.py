"""What must hold of a serving's spec beyond its types: model, adapters, names, arguments, template, rollout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from llm_operator.api.parallel import parallel_problems
from llm_operator.api.pod_validation import serving_pod_problems, union_problems
from llm_operator.api.references import credential_problems, exactly_one, pickle_problems, uri_problems
from llm_operator.api.resources import resource_problems
from llm_operator.api.serving import Adapter, LLMServingSpec
from llm_operator.api.vllm_arguments import argument_problems
from llm_operator.api.vllm_environment import environment_problems
from llm_server.arguments import given
from llm_trainer.config import is_remote


def serving_problems(spec: LLMServingSpec) -> Iterator[str]:
    yield from exactly_one("spec.model", spec.model, "training", "uri")
    yield from uri_problems("spec.model.uri", spec.model.uri, "model")
    yield from pickle_problems("spec.model", spec.model.uri, allowed=spec.model.allow_pickle)
    yield from resource_problems(spec.resources, "spec.resources")
    for name, count in Counter(adapter.name for adapter in spec.adapters).items():
        if count > 1:
            yield f"spec.adapters: {count} adapters are named {name!r}; give each its own name"
    for index, adapter in enumerate(spec.adapters):
        yield from served_adapter_problems(spec, adapter, f"spec.adapters[{index}]")
    yield from cache_problems(spec)
    yield from parallel_problems(spec.resources.gpus, spec.extra_arguments)
    yield from answer_problems(spec)
    yield from environment_problems(spec)
    yield from serving_pod_problems(spec)


def cache_problems(spec: LLMServingSpec) -> Iterator[str]:
    """Of what is fetched, and where to."""
    named = {"spec.model.uri": spec.model.uri}
    named |= {f"spec.adapters[{index}].uri": adapter.uri for index, adapter in enumerate(spec.adapters)}
    field, uri = next(((field, uri) for field, uri in named.items() if uri and is_remote(uri)), (None, None))
    if field and spec.model_cache is None:
        yield f"spec.modelCache: is needed for {uri} of {field}; set persistentVolumeClaim or emptyDir in it"
    if spec.model_cache:
        yield from union_problems("spec.modelCache", spec.model_cache, beside="refresh_interval_seconds")
        if field is None:
            yield "spec.modelCache: is of no use, as all URIs are pvc://; leave it out"
    yield from credential_problems(spec.credentials)


def served_adapter_problems(spec: LLMServingSpec, adapter: Adapter, path: str) -> Iterator[str]:
    yield from exactly_one(path, adapter, "training", "uri")
    yield from uri_problems(f"{path}.uri", adapter.uri, "model")
    yield from pickle_problems(path, adapter.uri, allowed=adapter.allow_pickle)
    if adapter.rank is not None and adapter.uri is None:
        yield f"{path}.rank: is that of the stage; leave it out with training"
    if adapter.name == spec.served_model_name:
        yield f"spec.adapters: an adapter can't have the model's name {adapter.name!r}; rename it"


def answer_problems(spec: LLMServingSpec) -> Iterator[str]:
    yield from served_name_problems(spec)
    has_template = spec.chat_template is not None
    yield from argument_problems(spec.extra_arguments, "spec.extraArguments", chat_template=has_template)
    yield from task_problems(spec)
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


def task_problems(spec: LLMServingSpec) -> Iterator[str]:
    """Without spec.task they may stand there: vLLM has more tasks than the field."""
    for written, flag, _ in given(spec.extra_arguments):
        if flag in ("--runner", "--convert") and spec.task != "generate":
            yield f"spec.extraArguments: {written} stands beside spec.task {spec.task}; remove one"


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
