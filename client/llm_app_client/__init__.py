"""An LLMApp from a program: where it is, and what of its documents answers a question."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

__all__ = ["App", "AppError", "Passage", "retrieve"]

SECONDS = 30.0


class AppError(Exception):
    """What an app answers instead. ``status``: of HTTP; None if it can't be reached."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class App:
    """``url``: as in ``status.url``, which ends with /v1. ``name``: of the LLMApp. ``key``: that of spec.apiKey."""

    url: str
    name: str
    key: str = field(default="", repr=False)

    @classmethod
    def of(cls, manifest: Mapping[str, Any], key: str = "") -> Self:
        """From what ``kubectl get llmapp NAME -o json`` says. Raises AppError where it has no address yet."""
        name, url = manifest["metadata"]["name"], (manifest.get("status") or {}).get("url")
        if not url:
            raise AppError(f"LLMApp {name} has no status.url yet; wait until it is Ready")
        return cls(url, name, key)


@dataclass(frozen=True)
class Passage:
    """What of a document answers. ``metadata``: the document's own, beside where it is from."""

    text: str
    score: float
    metadata: dict[str, Any]


def retrieve(
    app: App,
    query: str,
    *,
    knowledge: Sequence[str] = (),
    top_k: int | None = None,
    where: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
) -> list[Passage]:
    """Best first, as the app finds them. ``knowledge``: names of its bases, all by default. Raises AppError."""
    asked: dict[str, Any] = {"query": query, "knowledge": [*knowledge], "where": dict(where or {})}
    if top_k is not None:
        asked["top_k"] = top_k
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {app.key}"} if app.key else {})}
    request = urllib.request.Request(f"{app.url.rstrip('/')}/retrieve", json.dumps(asked).encode(), headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310 -- the user's own address
            found = json.loads(answer.read())["data"]
    except urllib.error.HTTPError as error:
        raise AppError(said_by(error.read(), error.code), error.code) from None
    except OSError as error:
        raise AppError(f"LLMApp {app.name} can't be reached at {app.url}: {error}") from None
    except (ValueError, KeyError, TypeError):
        raise AppError(f"what answers at {app.url} is no LLMApp") from None
    return [passage_of(one) for one in found]


def passage_of(told: Mapping[str, Any]) -> Passage:
    own = {key: told[key] for key in ("knowledge", "source", "title", "revision")}
    return Passage(told["text"], float(told["score"]), {**(told.get("metadata") or {}), **own})


def said_by(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"it answered {status}"
