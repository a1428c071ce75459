"""Which adapters a serving loads beside its model, and why it does not load the others. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm_operator.api.reasons import Reason
from llm_operator.api.serving import (
    MAX_LORA_RANKS,
    Adapter,
    AdapterStatus,
    LLMServingSpec,
    ServedAdapter,
    ServedResult,
    StageReference,
)
from llm_operator.api.training_status import Result
from llm_operator.kube.plan import Manifest
from llm_operator.serving.annotations import adapters_in, model_in
from llm_operator.serving.families import why_no_adapter
from llm_operator.serving.fetching import Fetch, Problem, served_of
from llm_operator.serving.fleet import template_metadata
from llm_operator.serving.observe import Observed
from llm_operator.serving.results import (
    REWARD_MODEL,
    Absence,
    lora_of,
    no_stage,
    no_training,
    rank_of,
    result_of,
    stage_text,
    stage_with_result,
    stages_of,
    unreadable,
    without_claim,
)
from llm_trainer.config import CACHE, Lora, is_remote, parse

DEFAULT_RANK = 16  # vLLM's own
# What no wait mends.
REFUSALS = (
    Reason.STAGE_NOT_FOUND,
    Reason.TRAINING_FAILED,
    Reason.NOT_AN_ADAPTER,
    Reason.ADAPTER_NOT_SUPPORTED,
    Reason.BASE_DIFFERS,
)
# What vLLM must not load, even if it has: it would answer wrongly, or not at all and its base neither.
NEVER = (Reason.NOT_AN_ADAPTER, Reason.ADAPTER_NOT_SUPPORTED)


@dataclass(frozen=True)
class AdapterChoice:
    """``adapter`` is None while there is none; the reason and message say why."""

    name: str
    adapter: ServedAdapter | None
    reason: Reason
    message: str


def choose_adapters(
    observed: Observed, spec: LLMServingSpec, model: ServedResult | None, fetches: Sequence[Fetch] = ()
) -> list[AdapterChoice]:
    return [choice_of(observed, spec, wanted, model, fetches) for wanted in spec.adapters]


def choice_of(
    observed: Observed, spec: LLMServingSpec, wanted: Adapter, model: ServedResult | None, fetches: Sequence[Fetch]
) -> AdapterChoice:
    found = base_problem(observed, spec, wanted) or (
        of_training(observed, wanted, wanted.training, model) if wanted.training else of_uri(wanted, fetches)
    )
    if isinstance(found, ServedAdapter) and not found.revision:
        found = without_claim(found.uri, observed) or found
    if isinstance(found, Absence):
        return AdapterChoice(wanted.name, None, found.reason, found.message)
    return AdapterChoice(wanted.name, found, Reason.ADAPTER_FOUND, found.uri)


def base_problem(observed: Observed, spec: LLMServingSpec, wanted: Adapter) -> Absence | None:
    """Why the model takes no adapters, told by its own training or the adapter's: with one vLLM would not start."""
    for source in (spec.model.training, wanted.training):
        name = source.name if source else ""
        training = observed.trainings.get(name)
        if training and (why := why_no_adapter(training, spec.resources)):
            said = f"LLMTraining {name}: {why}; set lora.merge: true in the stage and serve it by spec.model"
            return Absence(Reason.ADAPTER_NOT_SUPPORTED, said)
    return None


def of_uri(wanted: Adapter, fetches: Sequence[Fetch]) -> ServedAdapter | Absence:
    uri, revision = wanted.uri or "", None
    if is_remote(uri):
        found = served_of(fetches, uri)
        if isinstance(found, Problem):
            return Absence(found.reason, f"{uri}: {found.message}")
        revision = found.revision
    return adapter_of(wanted, revision)


def adapter_of(wanted: Adapter, revision: str | None) -> ServedAdapter:
    """One that a URI names."""
    return ServedAdapter(name=wanted.name, uri=wanted.uri or "", revision=revision, rank=wanted.rank or DEFAULT_RANK)


def of_training(
    observed: Observed, wanted: Adapter, reference: StageReference, model: ServedResult | None
) -> ServedAdapter | Absence:
    training = observed.trainings.get(reference.name)
    if training is None:
        field = f"spec.adapters[{wanted.name}].training"
        return no_training(reference.name, observed.serving["metadata"]["namespace"], field)
    if said := unreadable(training):
        return said
    if reference.stage not in stages_of(training):
        return no_stage(training, reference.stage)
    lora = loadable(training, reference.stage)
    if isinstance(lora, Absence):
        return lora
    result = result_of(training, reference.stage)
    if isinstance(result, Absence):
        return result
    if model and not belongs(result, model):
        return base_differs(training, reference.stage, result, model)
    return ServedAdapter(
        name=wanted.name,
        uri=result.uri,
        digest=result.digest,
        step=result.step,
        rank=rank_of(training, reference.stage),
    )


def loadable(training: Manifest, name: str) -> Lora | Absence:
    """The adapter that a stage trains, if vLLM can load it; known before the stage has run."""
    stage, who = stages_of(training)[name], stage_text(training, name)
    lora = lora_of(stage)
    if lora is None:
        return Absence(Reason.NOT_AN_ADAPTER, f"{who} makes no adapter; name a stage with lora")
    if lora.merge:
        said = f"{who} merges its adapter into the base (lora.merge); name the stage in spec.model of an LLMServing"
        return Absence(Reason.NOT_AN_ADAPTER, said)
    if REWARD_MODEL in stage:
        said = f"{who} adapts a reward model, which writes no text; name another stage"
        return Absence(Reason.ADAPTER_NOT_SUPPORTED, said)
    if lora.dora:
        said = f"{who} makes a DoRA adapter, which vLLM can't load beside its base; set lora.merge: true in the stage"
        return Absence(Reason.ADAPTER_NOT_SUPPORTED, said)
    if lora.experts:
        said = f"{who} adapts the experts, whose weights vLLM takes wrongly; set lora.merge: true in the stage"
        return Absence(Reason.ADAPTER_NOT_SUPPORTED, said)
    if (rank := rank_of(training, name)) > MAX_LORA_RANKS[-1]:
        said = f"{who} has an adapter of rank {rank}, and vLLM loads at most {MAX_LORA_RANKS[-1]}; "
        return Absence(Reason.ADAPTER_NOT_SUPPORTED, f"{said}set lora.merge: true in the stage or a smaller rank")
    return lora


def belongs(result: Result, model: ServedResult) -> bool:
    """Whether the adapter was trained on what is served: the same content, or the same place if none is known."""
    if result.base_digest and model.digest:
        return result.base_digest == model.digest
    if model.revision:  # the training has fetched it, too, to another place perhaps
        return (result.base or "").partition(f"/{CACHE}/")[2] == parse(model.uri).folder(model.revision)
    return (result.base or "").rstrip("/") == model.uri.rstrip("/")


def base_differs(training: Manifest, name: str, result: Result, model: ServedResult) -> Absence:
    """Base and adapter fit in shape perhaps, and would answer nonsense."""
    base, digest = stage_with_result(training, result.base), result.base_digest
    todo = f"stage {base} of LLMTraining {training['metadata']['name']}" if base else result.base
    said = f"{stage_text(training, name)} adapts {result.base}{f' ({digest[:19]})' if digest else ''} and not "
    mark = model.digest[:19] if model.digest else f"revision {model.revision}" if model.revision else ""
    served = f"{model.uri}{f' ({mark})' if mark else ''}, which is served; "
    return Absence(Reason.BASE_DIFFERS, f"{said}{served}name {todo} in spec.model, or train the adapter again")


def to_load(choices: Iterable[AdapterChoice], observed: Observed, model: ServedResult) -> list[ServedAdapter]:
    """Those that are there. One that no longer is stays as it was applied while the model is the same: what answers
    goes on whatever happens to its training.
    """
    told = template_metadata(observed.deployment).get("annotations") or {}
    listed = adapters_in(told) if model_in(told) == model else []
    applied = {adapter.name: adapter for adapter in listed if not adapter.revision}  # what is fetched may be elsewhere
    wanted = (choice.adapter or applied.get(choice.name) for choice in choices if choice.reason not in NEVER)
    return [adapter for adapter in wanted if adapter]


def max_lora_rank(adapters: Iterable[ServedAdapter]) -> int:
    """The least that vLLM can be given and that holds them all."""
    largest = max(adapter.rank for adapter in adapters)
    return next(rank for rank in MAX_LORA_RANKS if rank >= largest)


def statuses(choices: Iterable[AdapterChoice], serving: Iterable[ServedAdapter]) -> list[AdapterStatus]:
    """``serving``: what the newest ready pod has loaded."""
    there = {adapter.name: adapter for adapter in serving}
    return [
        AdapterStatus(
            name=choice.name,
            uri=now.uri if (now := there.get(choice.name)) else None,
            revision=now.revision if now else None,
            digest=now.digest if now else None,
            step=now.step if now else None,
            state=state_of(choice, now),
            reason=str(choice.reason),
            message=choice.message,
        )
        for choice in choices
    ]


def state_of(choice: AdapterChoice, now: ServedAdapter | None) -> str:
    if choice.adapter is None:
        return "Refused" if choice.reason in REFUSALS else "Waiting"
    return "Serving" if now == choice.adapter else "Starting"
