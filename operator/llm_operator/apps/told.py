"""What an app reads of an LLMServing, which an older definition, or somebody by hand, may have written. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from llm_operator.api.common import field_path
from llm_operator.api.reasons import Reason
from llm_operator.api.serving import ApiKey, Tls
from llm_operator.kube.plan import Manifest


class Part(BaseModel):
    """Of what an older definition, or somebody by hand, may have written."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")


class Adapter(Part):
    name: str
    state: str = ""
    message: str = ""


class Model(Part):
    uri: str = ""
    digest: str | None = None


class ToldStatus(Part):
    url: str = ""
    model: Model | None = None
    adapters: list[Adapter] = Field(default_factory=list)


class Told(Part):
    """What an app follows of an LLMServing's spec and status."""

    task: str = ""
    served_model_name: str | None = None
    max_model_length: int | None = None
    api_key: ApiKey | None = None
    tls: Tls | None = None
    extra_arguments: list[str] = Field(default_factory=list)
    adapters: list[Adapter] = Field(default_factory=list)
    status: ToldStatus


def read(serving: Manifest) -> Told | str:
    """Or why it can't be read."""
    try:
        return Told.model_validate({**(serving.get("spec") or {}), "status": serving.get("status") or {}})
    except ValidationError as error:
        return f"LLMServing {serving['metadata']['name']} can't be read: {first_of_all(error)}; correct it"


def first_of_all(error: ValidationError) -> str:
    """What can't be read, without the value."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = problem["loc"] if problem["loc"][:1] == ("status",) else ("spec", *problem["loc"])
    return f"{field_path(str(path[0]), *path[1:])}: {problem['msg']}"


def address_of(serving: Manifest, url: str) -> bool:
    """Whether it is one that the operator itself writes: pods send the serving's key there."""
    return re.fullmatch(rf"https?://[-a-z0-9]{{1,63}}\.{serving['metadata']['namespace']}\.svc/v1", url) is not None


@dataclass(frozen=True)
class Followed:
    """What becomes of following a serving. ``holds``: it answers.

    ``api_key`` and ``tls_secret`` are those of the serving: the app's pods get them where the serving's pods do.
    """

    reason: Reason
    message: str
    holds: bool = False
    api_key: dict[str, Any] | None = None
    tls_secret: str = ""


def access_of(told: Told) -> dict[str, Any]:
    """Those two fields."""
    return {
        "api_key": told.api_key.secret_key_ref.model_dump(by_alias=True) if told.api_key else None,
        "tls_secret": told.tls.secret_name if told.tls else "",
    }
