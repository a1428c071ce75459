"""What decides a stage's result, and in what two configurations of it differ. Pure.

The number of processes, the batch of each, how rows share it, which activations are kept, ZeRO, what processes share,
how often is saved, evaluated and published, how the loss is watched, who writes the answers, pods and images don't:
another run would differ as much. A checkpoint can be read only where those of `CHECKPOINT` are the same too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_trainer.config import (
    KINDS,
    Kto,
    Ppo,
    Pretrain,
    SharedSettings,
    StageConfig,
    TrainingSettings,
    kind_of,
    settings_of,
)

# as a user writes them
UNDECIDING = (
    "model",
    "checkpoint",
    "evaluation",
    "lossWatch",
    "publishEverySteps",
    "vllm",
    "packing",
    "activationCheckpointing",
    "compile",
    "sequenceParallel",
)
CHECKPOINT = ("microBatchSize", "zeroStage", "expertParallel", "tensorParallel")
STREAM = re.compile(r"data\.sources\[\d+\]\.stream")  # the same bytes as of a copy
SHARED = {field.alias or name for name, field in SharedSettings.model_fields.items()}
MODEL, DATA = "model", "data"  # what every stage may be made from: where it starts, and the prepared data
VALUE_CHARACTERS = 80
SHOWN = 8


@dataclass(frozen=True)
class Input:
    """A model, or the prepared data, that a stage is made from. The digest is None for what we have not written."""

    uri: str
    digest: str | None

    def __str__(self) -> str:
        return f"{self.uri} ({self.digest[:19]})" if self.digest else self.uri


Value = Input | bool | int | float | str | None
Values = dict[str, Value]


def differences(
    old: StageConfig, new: StageConfig, old_digests: Mapping[str, str], new_digests: Mapping[str, str], *, whole: bool
) -> list[str]:
    """Of two configurations of a stage, such as `optimizer.learningRate is 0.1 here and was 0.01`.

    `whole`: the stage is finished, so that it doesn't matter how its checkpoints would be read.
    """
    before, now = deciding(old, old_digests, whole=whole), deciding(new, new_digests, whole=whole)
    return [
        f"{path} is {shown(now.get(path))} here and was {shown(before.get(path))}"
        for path in dict.fromkeys([*now, *before])
        if not same(before.get(path), now.get(path))
    ]


def listed(found: list[str]) -> str:
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def deciding(config: StageConfig, digests: Mapping[str, str], *, whole: bool) -> Values:
    """By the path at which a user writes it, below the stage; below spec for data preparation."""
    settings = settings_of(config)
    if config.prepare_data:
        found = flat("", config.prepare_data.model_dump(mode="json", by_alias=True, include={"data", "tokenizer"}))
        return {path: value for path, value in found.items() if not STREAM.fullmatch(path)}
    if settings is None:
        return {}
    kind = KINDS[kind_of(config)]
    left_out = {*UNDECIDING, *(undeciding_when_whole(settings) if whole else ())}
    written = settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    values: Values = {"kind": kind}
    for name in written.keys() - left_out:
        values.update(flat(name if name in SHARED else f"{kind}.{name}", written[name]))
    if config.model and config.model.architecture:
        values.update(flat("model.architecture", config.model.architecture.model_dump(mode="json", by_alias=True)))
    for name, uri in input_uris(config).items():
        path = name if name in (DATA, MODEL) else f"{kind}.{name}"
        values = {known: value for known, value in values.items() if not known.startswith(f"{path}.")}
        values[path] = Input(relative(uri, config), digests.get(name))
    return dict(sorted(values.items()))


def undeciding_when_whole(settings: TrainingSettings) -> tuple[str, ...]:
    """KTO's loss compares the rows of a process's batch."""
    return tuple(name for name in CHECKPOINT if not (name == "microBatchSize" and isinstance(settings, Kto)))


def input_uris(config: StageConfig) -> dict[str, str]:
    """What a stage is made from: `model`, `data`, and by their fields the models that its kind names."""
    settings = settings_of(config)
    if settings is None:
        return {}
    uris = {
        reference.field: reference.model.uri or config.results.get(reference.model.stage or "", "")
        for reference in settings.references()
    }
    if config.model and config.model.uri:
        uris[MODEL] = config.model.uri
    if reads_data(config, settings):
        uris[DATA] = f"{config.run_uri}/data"
    return uris


def reads_data(config: StageConfig, settings: TrainingSettings) -> bool:
    """The corpus, or the tokenizer of a model from scratch."""
    from_scratch = bool(config.model and config.model.architecture)
    return isinstance(settings, Pretrain) or from_scratch or (isinstance(settings, Ppo) and settings.ptx is not None)


def relative(uri: str, config: StageConfig) -> str:
    """The run folder may have been restored to another place."""
    inside = uri.removeprefix(f"{config.run_uri}/")
    return uri if inside == uri else inside


def flat(path: str, value: Any) -> Values:
    """`{a: {b: [1]}}` as `{"a.b[0]": 1}`; what is None is left out, as a user would."""
    match value:
        case None:
            return {}
        case {} if not value and path:
            return {path: "{}"}  # set with nothing in it, which a mixture may be
        case dict():
            parts = [(f"{path}.{name}".lstrip("."), part) for name, part in value.items()]
        case list():
            parts = [(f"{path}[{index}]", part) for index, part in enumerate(value)]
        case _:
            return {path: value}
    return {name: leaf for below, part in parts for name, leaf in flat(below, part).items()}


def same(before: Value, now: Value) -> bool:
    """Of two inputs the digests tell, where both have one."""
    if isinstance(before, Input) and isinstance(now, Input) and before.digest and now.digest:
        return before.digest == now.digest
    if isinstance(before, Input) and isinstance(now, Input):
        return before.uri == now.uri
    return before == now and isinstance(before, bool) == isinstance(now, bool)


def shown(value: Value) -> str:
    text = "not set" if value is None else str(value) if isinstance(value, Input) else json.dumps(value)
    return text if len(text) <= VALUE_CHARACTERS else f"{text[:VALUE_CHARACTERS]}…"
