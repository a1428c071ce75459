"""What must hold of an app's spec beyond its types: sources, names of variables, schema, tokens."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from pydantic import BaseModel

from llm_app.config import OURS
from llm_app.prompt import CONTEXT, QUESTION, names_in
from llm_operator.api.agent_validation import agent_problems
from llm_operator.api.app import LLMAppSpec
from llm_operator.api.app_evaluation import HITS, AppEvaluation
from llm_operator.api.knowledge import KnowledgeBase, KnowledgeSource
from llm_operator.api.pod_validation import pod_problems, set_at
from llm_operator.api.pods import StagePods
from llm_operator.api.references import exactly_one, uri_problems
from llm_operator.api.resources import resource_problems

METADATA_KEY = re.compile(r"[-.A-Za-z0-9_]{1,63}")
INLINE_BYTES = 256 << 10  # of an app; the whole object may have 1.5 MiB
CONFIG_BYTES = 768 << 10  # of JSON, which pods have in a ConfigMap of 1 MiB at most; it escapes what no text has
MOST_DEEP = 32  # levels of an output schema
PROMPT = "spec.prompt"


def app_problems(spec: LLMAppSpec) -> Iterator[str]:
    yield from repeated("spec.knowledge", "knowledge bases", (one.name for one in spec.knowledge))
    for index, knowledge in enumerate(spec.knowledge):
        yield from knowledge_problems(knowledge, f"spec.knowledge[{index}]")
    if spec.storage is None and any(one.store is None for one in spec.knowledge):
        yield "spec.storage: is required with spec.knowledge that has no store, whose indexes are kept there; set it"
    inline = sum(
        len(document.text.encode()) for one in spec.knowledge for s in one.sources for document in s.inline or ()
    )
    if inline > INLINE_BYTES:
        yield (
            f"spec.knowledge: its inline documents have {inline:,} bytes, and {INLINE_BYTES:,} are taken; "
            "put them into ConfigMaps or a claim"
        )
    if (size := json_bytes(spec.prompt)) > CONFIG_BYTES:
        yield f"{PROMPT}: has {size:,} bytes as JSON, and {CONFIG_BYTES:,} are taken; shorten it"
    yield from prompt_problems(spec)
    if spec.evaluation:
        yield from evaluation_problems(spec, spec.evaluation)
    yield from agent_problems(spec)
    yield from resource_problems(spec.resources, "spec.resources")
    if spec.resources.gpus:
        yield "spec.resources.limits: the server of an app uses no GPU; its model's are those of the LLMServing"
    yield from pod_problems(spec.pods, partial(set_at, StagePods(), ""))
    for index, variable in enumerate(spec.pods.env):
        if variable.name.startswith(OURS):
            yield f"spec.pods.env[{index}]: {variable.name} is set by the operator; see spec.apiKey"


def knowledge_problems(knowledge: KnowledgeBase, path: str) -> Iterator[str]:
    yield from repeated(f"{path}.sources", "sources", (source.name for source in knowledge.sources))
    if knowledge.chunking.overlap * 2 > knowledge.chunking.size:
        yield f"{path}.chunking.overlap: must be at most half of size {knowledge.chunking.size}"
    size = sum(json_bytes(document) for source in knowledge.sources for document in source.inline or ())
    if size > CONFIG_BYTES:
        yield (
            f"{path}.sources: inline documents have {size:,} bytes as JSON, and {CONFIG_BYTES:,} are taken; "
            "put them into ConfigMaps or a claim"
        )
    if knowledge.store:
        yield from exactly_one(f"{path}.store", knowledge.store, "pgvector", "chroma")
    if knowledge.embedding is None:
        if knowledge.retrieval.mode not in (None, "keyword"):
            yield (
                f"{path}.retrieval.mode: {knowledge.retrieval.mode} needs embedding, by which meanings are compared; "
                "set that, or keyword"
            )
        if knowledge.retrieval.minimum_similarity:
            yield f"{path}.retrieval.minimumSimilarity: is of no use without embedding; remove it"
    yield from metadata_problems(f"{path}.retrieval.where", knowledge.retrieval.where)
    for index, source in enumerate(knowledge.sources):
        yield from source_problems(source, f"{path}.sources[{index}]")


def json_bytes(part: BaseModel) -> int:
    return len(part.model_dump_json(by_alias=True).encode())


def metadata_problems(path: str, metadata: Mapping[str, str]) -> Iterator[str]:
    for key in metadata:
        if not METADATA_KEY.fullmatch(key):
            yield f"{path}[{key}]: its name must be of at most 63 letters, digits, '-', '.' and '_'"


def source_problems(source: KnowledgeSource, path: str) -> Iterator[str]:
    yield from metadata_problems(f"{path}.metadata", source.metadata)
    for index, document in enumerate(source.inline or ()):
        yield from metadata_problems(f"{path}.inline[{index}].metadata", document.metadata)
    yield from exactly_one(path, source, "inline", "config_map", "uri", "https")
    yield from uri_problems(f"{path}.uri", source.uri)


def evaluation_problems(spec: LLMAppSpec, evaluation: AppEvaluation) -> Iterator[str]:
    path = "spec.evaluation"
    yield from exactly_one(f"{path}.questions", evaluation.questions, "config_map", "uri")
    yield from uri_problems(f"{path}.questions.uri", evaluation.questions.uri)
    if evaluation.gate == "block" and not evaluation.thresholds:
        yield (
            f"{path}.thresholds: is required with gate: block, which nothing could ever miss without; "
            "name what must hold"
        )
    yield from repeated(f"{path}.thresholds", "thresholds", (one.metric for one in evaluation.thresholds))
    for index, threshold in enumerate(evaluation.thresholds):
        at = f"{path}.thresholds[{index}].metric"
        if threshold.metric in HITS and not spec.knowledge:
            yield f"{at}: {threshold.metric} is of what documents are found, and there is no spec.knowledge; remove it"
        if threshold.metric == "judge" and not evaluation.judge:
            yield f"{at}: judge is told with spec.evaluation.judge: true; set it"


def prompt_problems(spec: LLMAppSpec) -> Iterator[str]:
    prompt = spec.prompt
    known = ", ".join(prompt.variables) or "none"
    for name in prompt.variables:
        if name in (CONTEXT, QUESTION):
            yield f"{PROMPT}.variables[{name}]: is set with each request; use another name"
        elif not (name.isascii() and name.isidentifier()):
            yield f"{PROMPT}.variables[{name}]: must be of letters, digits and '_', and not begin with a digit"
    for field, template, own in (
        ("system", prompt.system, ()),
        ("contextTemplate", prompt.context_template, (CONTEXT, QUESTION)),
    ):
        for name in names_in(template):
            if name not in (*prompt.variables, *own):
                yield f"{PROMPT}.{field}: {{{{{name}}}}} is no variable; those of spec.prompt.variables are {known}"
    if prompt.context_template and CONTEXT not in names_in(prompt.context_template):
        yield f"{PROMPT}.contextTemplate: has no {{{{context}}}}, where what documents say is to stand"
    if prompt.context_template and not spec.knowledge:
        yield f"{PROMPT}.contextTemplate: is of no use without spec.knowledge; remove it"
    yield from schema_problems(prompt.output_schema)


def schema_problems(text: str) -> Iterator[str]:
    if not text:
        return
    path = f"{PROMPT}.outputSchema"
    try:
        schema = json.loads(text)
        # what Python reads beyond JSON: numbers that are none, half of a character
        json.dumps(schema, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        yield f"{path}: is no JSON: {error}"
        return
    if not is_flat(schema, MOST_DEEP):
        yield f"{path}: nests deeper than {MOST_DEEP} levels; make it flatter"
    if not isinstance(schema, dict) or schema.get("type") != "object":
        yield f'{path}: must be the JSON Schema of an object, {{"type": "object", "properties": …}}'


def is_flat(value: object, most: int) -> bool:
    """Whether it has no more levels."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most >= 0 and all(is_flat(one, most - 1) for one in below)


def repeated(path: str, what: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{path}: {count} {what} are named {name!r}; give each its own name"
