"""What a pod serves, told by the annotations of its template. Another result so is another template. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from llm_operator.api.common import GROUP
from llm_operator.api.serving import ServedAdapter, ServedResult

MODEL_URI, MODEL_DIGEST, MODEL_STEP = (f"{GROUP}/model-{part}" for part in ("uri", "digest", "step"))
ADAPTERS = f"{GROUP}/adapters"  # a JSON list
DIGITS = 18


def served(model: ServedResult, adapters: Sequence[ServedAdapter]) -> dict[str, str]:
    listed = [adapter.model_dump(mode="json", by_alias=True, exclude_none=True) for adapter in adapters]
    return {
        MODEL_URI: model.uri,
        **({MODEL_DIGEST: model.digest} if model.digest else {}),
        **({MODEL_STEP: str(model.step)} if model.step is not None else {}),
        **({ADAPTERS: json.dumps(listed)} if listed else {}),
    }


def model_in(annotations: Mapping[str, str]) -> ServedResult | None:
    if MODEL_URI not in annotations:
        return None
    digest = annotations.get(MODEL_DIGEST)
    return ServedResult(uri=annotations[MODEL_URI], digest=digest, step=whole(annotations.get(MODEL_STEP, "")))


def adapters_in(annotations: Mapping[str, str]) -> list[ServedAdapter]:
    """Those that can be read: anybody may write annotations."""
    try:
        listed = json.loads(annotations.get(ADAPTERS, "[]"))
        return [ServedAdapter.model_validate(adapter) for adapter in listed]
    except (ValueError, TypeError, RecursionError):  # the first includes pydantic's
        return []


def whole(text: str) -> int | None:
    """A number that a status can hold."""
    return int(text) if text.isdecimal() and len(text) <= DIGITS else None
