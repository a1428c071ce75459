"""``python -m llm_operator plan FILE…``: what an LLMTraining, LLMServing or LLMApp would do, told without a cluster.

Hubs and servers that a training fetches from are asked how large that is (``remote_sizes.py``).

A file may be anything that ``kubectl apply -f`` takes. Which resources are GPUs is read from the environment, as the
operator reads it.
"""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llm_app.prompt import fixed_tokens
from llm_operator.api.app import LLMAppSpec
from llm_operator.api.common import GROUP, VERSION
from llm_operator.api.estimate import memory_warnings, stage_estimate
from llm_operator.api.families import FAMILIES, ModelSize
from llm_operator.api.knowledge import KnowledgeSource
from llm_operator.api.memory import stage_flops_per_token, stage_memory, training_size
from llm_operator.api.quantities import quantity_of, shown
from llm_operator.api.resolve import (
    nodes_of,
    processes_per_node,
    published_stage,
    resources_of,
    stage_model,
    world_size,
)
from llm_operator.api.resources import Devices
from llm_operator.api.serving import LLMServingSpec, StageReference, TrainingReference
from llm_operator.api.training import LLMTrainingSpec, Stage
from llm_operator.api.validation import InvalidSpecError, load_app, load_serving, load_training
from llm_operator.apps.configuration import prompt_of
from llm_operator.apps.teams import team_of
from llm_operator.manifest_files import read
from llm_operator.remote_sizes import describe_inputs
from llm_operator.serving.adapters import adapter_of
from llm_operator.serving.fetching import remote_uris
from llm_operator.serving.manifests import arguments, model_name
from llm_operator.settings import Settings, SettingsError
from llm_trainer.config import (
    KINDS,
    TOKENS_PER_SHARD,
    FineTuning,
    Mixture,
    Pretrain,
    Schedule,
    Shares,
    Source,
    TrainingSettings,
    functions_of,
    is_remote,
    kind_of,
    settings_of,
)

NAME = re.compile(r"(?=.{1,63}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
SHOWN = 8  # sources of a weight
NAMED = "at most 63 small letters, digits, '-' and '.'"
LOAD: dict[str, Callable[[object, Devices], LLMTrainingSpec | LLMServingSpec | LLMAppSpec]] = {
    "LLMTraining": load_training,
    "LLMServing": load_serving,
    "LLMApp": load_app,
}


def main(files: list[str]) -> int:
    """Prints what each object would do; 1 if one of them can't work, 2 if there is none or something can't be read."""
    try:
        devices = Settings.from_environment().devices
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may hold what the terminal can't show
    contents = read(files)
    for line in (*contents.warnings, *contents.problems):
        print(line, file=sys.stderr)
    ours = [manifest for manifest in contents.objects if is_ours(manifest)]
    if others := Counter(manifest["kind"] for manifest in contents.objects if not is_ours(manifest)):
        print(f"skipped: {', '.join(f'{count} {kind}' for kind, count in others.items())}")
    working = [tell(manifest, devices) for manifest in ours]
    if not ours:
        print(f"no {' or '.join(LOAD)} in {', '.join(files) or 'nothing'}; name a file that holds one", file=sys.stderr)
    if contents.problems or not ours:
        return 2
    return int(not all(working))


def is_ours(manifest: dict[str, Any]) -> bool:
    """Another group may have the same kinds."""
    version = manifest.get("apiVersion")
    return manifest["kind"] in LOAD and (not isinstance(version, str) or version.partition("/")[0] == GROUP)


def tell(manifest: dict[str, Any], devices: Devices) -> bool:
    """Prints what the object would do, or why it can't work; whether it can."""
    problems = tuple(manifest_problems(manifest))
    try:
        spec = LOAD[manifest["kind"]](manifest.get("spec"), devices)
    except InvalidSpecError as error:
        problems += error.problems
    if problems:
        lines = [f"{manifest['kind']} {name_of(manifest)} can't work:", *(f"  {problem}" for problem in problems)]
    elif isinstance(spec, LLMTrainingSpec):
        lines = list(describe(name_of(manifest), spec))
    elif isinstance(spec, LLMAppSpec):
        lines = list(describe_app(name_of(manifest), spec))
    else:
        lines = list(describe_serving(manifest, spec))
    print("\n".join(lines))
    return not problems


def name_of(manifest: dict[str, Any]) -> str:
    metadata = manifest.get("metadata")
    found = (metadata.get("name") or metadata.get("generateName")) if isinstance(metadata, dict) else None
    return found if isinstance(found, str) else "without a name"


def manifest_problems(manifest: dict[str, Any]) -> Iterator[str]:
    """What is wrong around the spec."""
    if manifest.get("apiVersion") != f"{GROUP}/{VERSION}":
        yield f"apiVersion: must be {GROUP}/{VERSION}, not {shown(manifest.get('apiVersion'))}"
    for field in manifest.keys() - {"apiVersion", "kind", "metadata", "spec", "status"}:
        yield f"{field}: there is no such field; remove it or correct its name"
    metadata = manifest.get("metadata", {})
    if not isinstance(metadata, dict):
        yield f"metadata: must be an object, not {shown(metadata)}"
        return
    names = {field: metadata[field] for field in ("name", "generateName") if metadata.get(field) is not None}
    for field, name in names.items():
        if not isinstance(name, str):
            yield f"metadata.{field}: must be a text, not {shown(name)}"
        elif field == "name" and not NAME.fullmatch(name):
            yield f"metadata.name: {shown(name)} must be {NAMED}"
    if not any(names.values()):
        yield "metadata.name: is required; set it"


def describe(name: str, spec: LLMTrainingSpec) -> Iterator[str]:
    size = training_size(spec)
    yield f"LLMTraining {name}: {several(len(spec.stages), 'stage')} after data preparation"
    yield f"  model      {describe_model(spec, size)}"
    if spec.resume_from:
        yield f"  resumes    from {spec.resume_from.uri}: what it holds of the same settings is not made again"
    if spec.data:
        vocabulary = (
            f" by a tokenizer of {train.vocabulary_size:,} tokens"
            if (train := spec.tokenizer and spec.tokenizer.train)
            else ""
        )
        yield (
            f"  data       {several(len(spec.data.sources), 'source')}{vocabulary}, "
            f"{spec.data.validation_fraction:.3g} of each held out, in shards of {count(TOKENS_PER_SHARD)} tokens"
        )
    if (nodes := spec.prepare_data.nodes) > 1:
        yield f"  prepared   by {several(nodes, 'pod')}, each with a process for each of its CPUs"
    for at, line in enumerate(describe_inputs(spec)):
        yield f"  {'' if at else 'fetches':10} {line}"
    for index, stage in enumerate(spec.stages):
        yield from describe_stage(spec, index, stage)
    for at, entry in enumerate(spec.publish):
        private = ", private if it is made" if entry.private and entry.to.startswith("hf://") else ""
        yield f"  {'' if at else 'publishes':10} {published_stage(spec, entry)} to {entry.to}{private}"
    for warning in memory_warnings(spec):
        yield f"  warning: {warning}"


def describe_serving(manifest: dict[str, Any], spec: LLMServingSpec) -> Iterator[str]:
    """What of vLLM's arguments follows from the results of trainings is not known without a cluster."""
    names = ", ".join((model_name(manifest, spec), *spec.served_model_aliases))
    yield f"LLMServing {name_of(manifest)}: answers as {names}"
    yield f"  model      {describe_source(spec.model.training, spec.model.uri)}"
    for adapter in spec.adapters:
        yield f"  adapter    {adapter.name}, {describe_source(adapter.training, adapter.uri)}"
    resources = spec.resources
    each = f"{resources.gpus} {resources.gpu_resource}" if resources.gpus else "no GPU"
    yield f"  pods       {spec.replicas}, each with {each}"
    yield f"  image      {spec.image or 'that of the operator (its setting serving_image)'}"
    yield from (f"  fetched    {uri}, {describe_cache(spec)}" for uri in remote_uris(spec))
    loaded = [adapter_of(one, "REVISION" if is_remote(one.uri) else None) for one in spec.adapters if one.uri]
    yield f"  arguments  {shlex.join(arguments(manifest, spec, loaded))}"


def describe_cache(spec: LLMServingSpec) -> str:
    cache = spec.model_cache
    if cache and cache.persistent_volume_claim:
        return f"once, into claim {cache.persistent_volume_claim.claim_name}"
    return f"by each pod, into at most {cache.empty_dir.size_limit} of its node" if cache and cache.empty_dir else ""


def describe_app(name: str, spec: LLMAppSpec) -> Iterator[str]:
    """What it sends for a question is told by ``python -m llm_operator prompt``."""
    serving, prompt = spec.model.serving, spec.prompt
    adapter = f", its adapter {serving.adapter}" if serving.adapter else ""
    yield f"LLMApp {name}: answers as {name}"
    yield f"  model      LLMServing {serving.name}{adapter}, at most {spec.parameters.max_tokens} tokens an answer"
    for one in spec.knowledge:
        sources = ", ".join(map(describe_documents, one.sources))
        sent = (
            "looked up by tools alone" if spec.agents else f"{several(one.retrieval.top_k, 'chunk')} a question at most"
        )
        yield f"  knowledge  {one.name}: {sources}; {sent}"
    yield from describe_agents(spec)
    fixed = fixed_tokens(prompt_of(prompt))
    yield f"  prompt     {several(len(prompt.examples), 'example')}, about {fixed} tokens with each request"
    if asked := spec.evaluation:
        questions = asked.questions.uri or f"ConfigMap {asked.questions.config_map and asked.questions.config_map.name}"
        yield f"  evaluation by {questions}; gate: {asked.gate}"
    yield f"  pods       {spec.replicas}"


def describe_agents(spec: LLMAppSpec) -> Iterator[str]:
    team = team_of(spec, {})
    for one in team.agents if team else ():
        steps = f"{several(one.steps, 'step')} at most, with {', '.join(one.tools)}" if one.tools else "without tools"
        yield f"  agent      {one.name}: {steps}"
    if team and team.workflow:
        workflow = next(iter(team.workflow.model_dump(by_alias=True, exclude_none=True)))
        yield f"  workflow   {workflow}: {', '.join(team.workflow.members)}"


def describe_documents(source: KnowledgeSource) -> str:
    if source.inline:
        return several(len(source.inline), "inline document")
    if source.https:
        return several(len(source.https.urls), "URL")
    return f"ConfigMap {source.config_map.name}" if source.config_map else str(source.uri)


def describe_source(training: TrainingReference | StageReference | None, uri: str | None) -> str:
    if training is None:
        return str(uri)
    return f"stage {training.stage or 'that yields the last model'} of LLMTraining {training.name}"


def describe_model(spec: LLMTrainingSpec, size: ModelSize | None) -> str:
    if spec.model.architecture is None:
        return f"{spec.model.uri}, whose size the file does not tell"
    if spec.model.architecture.family not in FAMILIES:
        return f"{spec.model.architecture.family} from scratch, whose size data preparation tells"
    if size is None:
        return f"{spec.model.architecture.family}, whose size depends on the tokenizer's vocabulary"
    active = "" if size.active == size.total else f", {count(size.active)} of them used by a token"
    made = f", by {function}" if (function := spec.model.architecture.function) else ""
    return f"{spec.model.architecture.family} from scratch{made}, {count(size.total)} parameters{active}"


def describe_stage(spec: LLMTrainingSpec, index: int, stage: Stage) -> Iterator[str]:
    settings = settings_of(stage)
    assert settings  # noqa: S101 -- the spec is valid
    processes = world_size(spec, stage)
    source = stage_model(spec, index)
    start = "from scratch" if source is None else f"from {source.stage or source.uri}"
    adapter = ", a low-rank adapter" if settings.lora else ""
    yield f"  {stage.name:10} {KINDS[kind_of(stage)]} {start}{adapter}"
    pods = f"{several(nodes_of(spec, stage), 'pod')} × {several(processes_per_node(spec, stage), 'process')}"
    learners = processes // settings.processes_per_row
    accumulation = settings.global_batch_size // (settings.micro_batch_size * learners)
    yield f"    pods     {pods}, ZeRO {settings.zero_stage}: {describe_sharding(settings, processes)}"
    if shared := describe_sharing(settings, processes_per_node(spec, stage)):
        yield f"    shares   {shared}"
    of = "processes" if settings.processes_per_row == 1 else "groups of processes"
    yield (
        f"    batch    {settings.global_batch_size} = {settings.micro_batch_size} × {learners} {of} × "
        f"{accumulation} accumulated, of up to {settings.length} tokens"
    )
    if isinstance(settings, Pretrain) and settings.mixture:
        yield from describe_mixture(settings, settings.mixture, spec.data.sources if spec.data else [])
    yield f"    learns   {describe_optimizer(settings)}; {describe_schedule(settings.schedule)}"
    if functions := functions_of(stage):
        yield f"    calls    {', '.join(f'{function.name} ({function.field})' for function in functions)}"
    yield from describe_steps(settings, stage_flops_per_token(spec, index))
    yield from describe_memory(spec, index, settings)


def describe_mixture(settings: Pretrain, mixture: Mixture, sources: Sequence[Source]) -> Iterator[str]:
    """What each phase reads. How many tokens a source has, and so how many epochs, data preparation tells."""
    begins = mixture.begins(settings.total_rows, settings.sequence_length)
    for begin, (_, shares) in zip(begins, mixture.phases(), strict=True):
        share = f"from {begin / settings.total_rows:.3g} on ({count(begin * settings.sequence_length)} tokens) "
        yield f"    {'mixture  ' if not begin else '         ' + share}{describe_shares(shares, sources)}"
    for limit in mixture.max_epochs or []:
        yield f"             at most {limit.epochs:g} epochs of {limit}"


def describe_shares(shares: Shares, sources: Sequence[Source]) -> str:
    if shares.weights is None:
        kinds = len({(source.domain, source.language) for source in sources})
        if shares.temperature in (None, 1):
            return f"{several(len(sources), 'source')} by size"
        return f"{several(kinds, 'kind')} of domain and language by tokens ** {shares.temperature:g}"
    total = sum(entry.weight for entry in shares.weights)
    left, parts = list(sources), list[str]()
    for entry in shares.weights:
        chosen = [source for source in left if entry.selects(source.name, source.domain, source.language)]
        left = [source for source in left if source not in chosen]
        names = ", ".join(source.name for source in chosen[:SHOWN])
        more = f" and {len(chosen) - SHOWN} more" if len(chosen) > SHOWN else ""
        by_size = " by size" if len(chosen) > 1 else ""
        parts.append(f"{100 * entry.weight / total:.3g} % {names}{more}{by_size}")
    return "; ".join(parts) + (f"; nothing of {several(len(left), 'source')}" if left else "")


def describe_memory(spec: LLMTrainingSpec, index: int, settings: TrainingSettings) -> Iterator[str]:
    """What is certain, then what is estimated with it, each term by name."""
    memory, estimate, resources = (
        stage_memory(spec, index),
        stage_estimate(spec, index),
        resources_of(spec, spec.stages[index]),
    )
    if memory is None:
        return
    held = "the base's weights" if settings.lora else "weights, gradients and optimizer state"
    yield f"    memory   {quantity_of(memory.per_process)} per process for {held}"
    if estimate:
        of = f" of {spec.gpu_memory}" if spec.gpu_memory and resources.gpus else ""
        yield f"    peak     {quantity_of(estimate.per_process)}{of} per process are estimated, in {estimate.moment}:"
        yield f"             {estimate}"
        yield f"    host     {quantity_of(estimate.host)} of RAM per pod, with a checkpoint's snapshot"


def describe_sharing(settings: TrainingSettings, node: int) -> str:
    """Who shares what, and whether over the network between nodes; empty where nobody does."""
    what = {"sequenceParallel": "each row, as parts of its tokens", "tensorParallel": "each layer's matrices"}
    parts = [f"{size} processes share {what[name]}" for name, size in settings.shared_work.items() if size > 1]
    apart = parts and node % settings.processes_per_row
    return "; ".join(parts) + ("; they are on several pods: slower than within one" if apart else "")


def describe_optimizer(settings: TrainingSettings) -> str:
    """With the defaults of the stage's kind."""
    optimizer = settings.optimizer
    muon = f"muon at {optimizer.muon_learning_rate:g} and " if optimizer.type == "muon" else ""
    name = f"the optimizer of {optimizer.function}" if optimizer.function else "adamw"
    return (
        f"{muon}{name} at {optimizer.learning_rate:g}, betas {optimizer.beta1:g} and {optimizer.beta2:g}, "
        f"weight decay {optimizer.weight_decay:g}"
    )


def describe_schedule(schedule: Schedule) -> str:
    warmup = f"{schedule.warmup_steps} steps of warm-up, then " if schedule.warmup_steps else ""
    shape = f"wsd, of which {schedule.decay_fraction:g} decays" if schedule.type == "wsd" else schedule.type
    end = "" if schedule.type == "constant" else f", down to {schedule.minimum_ratio:g} of the peak"
    return f"{warmup}{shape}{end}"


def describe_sharding(settings: TrainingSettings, processes: int) -> str:
    """What ZeRO spreads, and into how many shards."""
    parts = ("optimizer state", "gradients", "weights")[: settings.zero_stage]
    return f"{' and '.join(parts)} in {several(processes, 'shard')}" if parts else "nothing is sharded"


def describe_steps(settings: TrainingSettings, flops: int | None) -> Iterator[str]:
    """Of a pretrain stage; those of the others follow from the rows of their datasets."""
    if isinstance(settings, Pretrain):
        per_step = settings.global_batch_size * settings.length
        steps = settings.total_steps
        yield f"    tokens   {count(steps * per_step)} in {steps:,} steps of {per_step:,}"
        if flops:
            yield f"    work     {count(flops)}FLOPs per token, {count(flops * steps * per_step)}FLOPs in all"
    elif isinstance(settings, FineTuning):
        yield f"    steps    rows of {settings.dataset.uri} × {settings.epochs:g} / {settings.rows_per_step}"


def several(number: int, what: str) -> str:
    """1 pod, 2 pods, 2 processes."""
    return f"{number} {what}" if number == 1 else f"{number} {what}{'es' if what.endswith('s') else 's'}"


def count(number: float) -> str:
    """With three digits and a unit, such as 6.49 M."""
    for unit in ("", "K", "M", "G", "T", "P", "E", "Z"):
        if number < 1000 or unit == "Z":
            return f"{number:.3g} {unit}".rstrip() if unit else f"{number:.3g}"
        number /= 1000
    raise AssertionError
