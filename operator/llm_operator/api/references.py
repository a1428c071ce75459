"""What holds wherever a spec names something: one of a union's members, a path in a claim, a stage before this one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from llm_operator.api.training import LLMTrainingSpec
from llm_trainer.config import (
    Credentials,
    InputUse,
    Remote,
    StageModel,
    claim_of,
    is_remote,
    local_path,
    parse,
    settings_of,
)


def exactly_one(path: str, choice: BaseModel, *fields: str) -> Iterator[str]:
    """Kubernetes' way of a union: one of the fields and no other."""
    given = [field for field in fields if getattr(choice, field) is not None]
    if len(given) != 1:
        names = " and ".join(map(to_camel, given)) if given else "none"
        yield f"{path}: exactly one of {', '.join(map(to_camel, fields))} must be set, not {names}"


def uri_problems(path: str, uri: str | None, use: InputUse = "data") -> Iterator[str]:
    if uri is None:
        return
    try:
        remote = parse(uri) if is_remote(uri) else None
        if remote is None:
            local_path(uri)
    except ValueError as error:
        yield f"{path}: {error}"
        return
    if remote:
        yield from remote_problems(path, uri, remote, use)
    else:
        if not claim_of(uri) or "/" not in uri.removeprefix("pvc://").rstrip("/"):
            yield f"{path}: {uri!r} names no path in a claim; write pvc://CLAIM/PATH"


def pickle_problems(path: str, uri: str | None, *, allowed: bool) -> Iterator[str]:
    """On a claim nothing is written beside what a user has put there."""
    if allowed and not (uri and is_remote(uri)):
        yield f"{path}.allowPickle: is of what is fetched, and {path}.uri names no hub and no bucket; remove it"


def credential_problems(credentials: Sequence[Credentials]) -> Iterator[str]:
    for target, count in Counter(each.target for each in credentials).items():
        if count > 1:
            yield f"spec.credentials: {count} Secrets are for {target}; leave one"


def remote_problems(path: str, uri: str, remote: Remote, use: InputUse) -> Iterator[str]:
    if use == "data":
        if remote.scheme == "hf" and not remote.path:
            yield f"{path}: {uri!r} names a whole repository; name the files in it, such as {uri.rstrip('/')}/*.jsonl"
        return
    if remote.scheme == "https":
        yield f"{path}: {uri!r} names a file, and a {use} is a folder; write hf://ORG/NAME or s3://BUCKET/PATH"
    elif remote.datasets:
        yield f"{path}: {uri!r} is a repository of data; write hf://ORG/NAME"
    elif remote.is_glob:
        yield f"{path}: {uri!r} is a glob, and a {use} is one folder; leave out the signs *, ? and ["


def reference_problems(
    spec: LLMTrainingSpec, index: int, reference: StageModel, path: str, wanted: str
) -> Iterator[str]:
    """``wanted``: what the stage that is named must yield."""
    yield from exactly_one(path, reference, "stage", "uri")
    yield from uri_problems(f"{path}.uri", reference.uri, "model")
    yield from pickle_problems(path, reference.uri, allowed=reference.allow_pickle)
    if reference.stage is None:
        return
    earlier = spec.stages[:index]
    named = next((stage for stage in earlier if stage.name == reference.stage), None)
    names = ", ".join(stage.name for stage in earlier) or "none"
    settings = settings_of(named) if named else None
    if named is None:
        where = "comes later" if reference.stage in {s.name for s in spec.stages} else "does not exist"
        yield f"{path}.stage: stage {reference.stage!r} {where}; the stages before this one are {names}"
    elif settings and settings.yields != wanted:
        is_one = {"model": "a language model", "rewardModel": "a reward model, which writes no text"}
        choices = [stage.name for stage in earlier if (s := settings_of(stage)) and s.yields == wanted]
        yield (
            f"{path}.stage: stage {reference.stage!r} is {is_one[settings.yields]}; "
            f"name one of {', '.join(choices) or 'none'}"
        )
