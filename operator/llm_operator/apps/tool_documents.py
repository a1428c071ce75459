"""How the OpenAPI documents of tools stand that lie elsewhere: whether pods could be given them. Pure.

One of a ConfigMap is looked at whole before any pod starts; of one in a claim only the claim can be looked at, and one
of the network is the server's to fetch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from llm_operator.api.app import LLMAppSpec
from llm_operator.api.reasons import Reason
from llm_operator.api.tools import OpenApiTool
from llm_operator.apps.config_maps import Content, Document
from llm_operator.apps.observe import Observed
from llm_trainer.config import claim_of


@dataclass(frozen=True)
class Documents:
    """``digests`` by the tool's name. ``known``: false while a ConfigMap was not asked for yet."""

    digests: Mapping[str, str] = field(default_factory=dict)
    known: bool = True
    reason: Reason | None = None
    message: str = ""

    @property
    def usable(self) -> bool:
        return self.known and self.reason is None


def documents_of(observed: Observed, spec: LLMAppSpec) -> Documents:
    digests: dict[str, str] = {}
    known = True
    for index, tool in enumerate(spec.tools if spec.agents else ()):
        if tool.openapi is None:
            continue
        for reason, message in problems(observed, tool.openapi):
            return Documents(reason=reason, message=f"spec.tools[{index}].openapi: {message}")
        if named := tool.openapi.config_map:
            content = observed.sources.get(named.name, Content())
            known = known and content.known
            digests[tool.name] = content.keys.get(named.key, "")
    return Documents(digests, known)


def problems(observed: Observed, tool: OpenApiTool) -> Iterator[tuple[Reason, str]]:
    if tool.uri and (claim := str(claim_of(tool.uri))) not in observed.claims:
        yield Reason.CLAIM_NOT_FOUND, f"PersistentVolumeClaim {claim} does not exist; create it, or correct uri"
    named = tool.config_map
    if named is None:
        return
    content = observed.sources.get(named.name, Content())
    if content.problem:
        yield Reason.SOURCE_NOT_FOUND, content.problem
    elif content.known and named.key not in content.keys:
        there = ", ".join(content.some)
        yield Reason.SOURCE_NOT_FOUND, f"ConfigMap {named.name} has no key {named.key!r}; its keys are {there}"
    asked = Document(named.name, named.key, tuple(tool.operations), tuple(one.name for one in tool.headers))
    if refused := content.refused.get(asked):
        yield Reason.TOOL_DOCUMENT_REFUSED, f"{named.key} of ConfigMap {named.name} {refused}"
