"""Every setting of the operator. Each is read from the environment variable of its upper-case name."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from llm_operator.api.common import field_path
from llm_operator.api.network import NetworkPolicies
from llm_operator.api.resources import GPU_RESOURCES, OTHER_RESOURCES, Devices

_split = BeforeValidator(
    lambda value: [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
)
CommaSeparated = Annotated[tuple[str, ...], _split]
ResourceNames = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=r"^[-a-z0-9.*?\[\]]+/[-A-Za-z0-9_.*?\[\]]+$")], ...], _split
]
_object_name = StringConstraints(
    pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253
)
_from_json = BeforeValidator(lambda value: json.loads(value) if isinstance(value, str) else value)
ObjectNames = Annotated[tuple[Annotated[str, _object_name], ...], _split]


class SettingsError(ValueError):
    """An environment variable has a value that the operator can't work with."""


class Settings(BaseModel):
    """Defaults suit a cluster; the chart sets images, namespaces and the pod's own name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trainer_image: str = Field(default="llm-operator-trainer", description="Image of training pods without their own.")
    serving_image: str = Field(default="llm-operator-trainer", description="Image of serving pods without their own.")
    app_image: str = Field(default="llm-operator-app", description="Image of the pods of apps without their own.")
    child_image_pull_secrets: ObjectNames = Field(
        default=(),
        max_length=16,
        description="Secrets by which pods of trainings and servings pull, in their own namespaces; beside the spec's.",
    )
    network_policies: Annotated[NetworkPolicies, _from_json] = Field(
        default_factory=NetworkPolicies,
        description="Whether all pods that it makes get a NetworkPolicy and what it allows, as JSON; see the chart.",
    )
    namespaces: CommaSeparated = Field(
        default=(), description="Namespaces to serve, separated by commas. Empty: all, which needs a ClusterRole."
    )
    gpu_resources: ResourceNames = Field(
        default=GPU_RESOURCES,
        min_length=1,
        description="Extended resources that are GPUs, names or globs separated by commas.",
    )
    other_resources: ResourceNames = Field(
        default=OTHER_RESOURCES,
        description="Extended resources that are none, such as network cards; what is in neither list is refused.",
    )
    progress_interval_seconds: float = Field(
        default=10, gt=0, description="Between two looks at a running stage's progress; also the pace of its status."
    )
    surge_timeout_seconds: float = Field(
        default=60,
        ge=0,
        description="Until an old pod of a serving goes first because a new one finds no room beside it.",
    )
    rollout_interval_seconds: float = Field(
        default=60,
        ge=0,
        description="From one rollout of a serving because of a new result to the next; spec changes don't wait.",
    )
    metrics_port: int = Field(default=8080, ge=0, le=65535, description="Port of /metrics. 0: any free port.")
    probe_port: int = Field(default=8081, ge=0, le=65535, description="Port of /healthz and /readyz. 0: any free port.")
    workers: int = Field(default=16, ge=1, le=256, description="Objects that are reconciled at the same time.")
    resync_seconds: float = Field(
        default=600, gt=0, description="Between two looks at an object that nothing else woke up; spread by ± 20 %."
    )
    watch_seconds: int = Field(default=300, ge=30, description="How long one watch request lives before it is renewed.")
    request_seconds: float = Field(default=30, gt=0, description="Total time of one API request.")
    lease_name: str = Field(default="llm-operator", description="Name of the Lease that elects the leader.")
    pod_namespace: str = Field(default="default", description="Namespace of the operator's pod and its Lease.")
    pod_name: str = Field(default_factory=socket.gethostname, description="Name of the operator's pod.")
    lease_seconds: float = Field(
        default=15, ge=3, description="After this time without renewal another replica takes over."
    )
    log_level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR."
    )

    @property
    def devices(self) -> Devices:
        return Devices(self.gpu_resources, self.other_resources)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Reads the settings; raises SettingsError with the variable's name, its value and what is wrong with it."""
        given: dict[str, Any] = {name: environ[name.upper()] for name in cls.model_fields if environ.get(name.upper())}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise SettingsError(
                "; ".join(
                    f"{str(problem['loc'][0]).upper()}={given[str(problem['loc'][0])]!r}: {said(problem)}"
                    for problem in error.errors()
                )
            ) from None


def said(problem: ErrorDetails) -> str:
    """What is wrong, with its place inside a value that is JSON."""
    place = field_path("", *problem["loc"][1:]).removeprefix(".")
    return f"{place}: {problem['msg']}" if place else problem["msg"]
