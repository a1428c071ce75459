"""What a pod serves, told by the annotations of its template. Another result so is another template. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from llm_operator.api.common import GROUP
from llm_operator.api.serving import MAX_LORA_RANKS, ServedAdapter, ServedResult
from llm_operator.api.text import shown
from llm_trainer.config import CACHE, is_remote, local_path, parse

MODEL_URI, MODEL_REVISION, MODEL_DIGEST, MODEL_STEP = (
    f"{GROUP}/model-{part}" for part in ("uri", "revision", "digest", "step")
)
ADAPTERS = f"{GROUP}/adapters"  # a JSON list
MODELS = "/volumes/.models"  # the model cache in a pod: no claim has such a name
DIGITS = 18
MOST_CHARACTERS = 1024  # of a URI or a digest; those of a spec and of a result have fewer
CHAT_TEMPLATE = f"{GROUP}/chat-template"  # NAME/KEY@DIGEST of a ConfigMap
PLACE = f"{GROUP}/place"  # hash of what decides on which nodes a pod fits
TEMPLATE = f"{GROUP}/template"  # hash of the rest of the template: whether a pod is of the newest


def served(model: ServedResult, adapters: Sequence[ServedAdapter]) -> dict[str, str]:
    listed = [adapter.model_dump(mode="json", by_alias=True, exclude_none=True) for adapter in adapters]
    return {
        MODEL_URI: model.uri,
        **({MODEL_REVISION: model.revision} if model.revision else {}),
        **({MODEL_DIGEST: model.digest} if model.digest else {}),
        **({MODEL_STEP: str(model.step)} if model.step is not None else {}),
        **({ADAPTERS: json.dumps(listed)} if listed else {}),
    }


def model_in(annotations: Mapping[str, str]) -> ServedResult | None:
    made = ServedResult(
        uri=annotations.get(MODEL_URI, ""),
        revision=annotations.get(MODEL_REVISION),
        digest=annotations.get(MODEL_DIGEST),
        step=whole(annotations.get(MODEL_STEP, "")),
    )
    return made if is_ours(made) else None


def adapters_in(annotations: Mapping[str, str]) -> list[ServedAdapter]:
    """Those that can be read: anybody may write annotations."""
    try:
        listed = json.loads(annotations.get(ADAPTERS, "[]"))
        found = [ServedAdapter.model_validate(adapter) for adapter in listed]
    except (ValueError, TypeError, RecursionError):  # the first includes pydantic's
        return []
    return [adapter for adapter in found if is_ours(adapter) and 0 < adapter.rank <= MAX_LORA_RANKS[-1]]


def folder_of(served: ServedResult) -> str:
    """In the pods. Raises ValueError for what is in no claim and was not fetched."""
    if is_remote(served.uri):
        return f"{MODELS}/{CACHE}/{parse(served.uri).folder(served.revision or '')}"
    return local_path(served.uri)


def is_ours(told: ServedResult) -> bool:
    """Whether we could have written it: anybody may write annotations, and a status shows what they say."""
    try:
        folder_of(told)
    except ValueError:
        return False
    words = (told.uri, told.revision or "", told.digest or "")
    return all(len(word) <= MOST_CHARACTERS and shown(word) == word for word in words)


def whole(text: str) -> int | None:
    """A number that a status can hold."""
    return int(text) if text.isdecimal() and len(text) <= DIGITS else None
