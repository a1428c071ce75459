"""What a pod asks for: CPUs, memory, GPUs and other devices; and what of it no pod could have. Pure.

Which extended resources are GPUs is a setting of the operator: a pod's manifest doesn't tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr

from llm_operator.api.common import Spec, field_path
from llm_operator.api.quantities import Quantity, QuantityError, amount, quantity_text, whole

GPU_RESOURCES = ("nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-*", "amd.com/gpu")
OTHER_RESOURCES = (
    "rdma/*",  # the shared RDMA device plugin, and Azure
    "vpc.amazonaws.com/efa",
    "networking.gke.io.networks/*",  # Google's GPUDirect interfaces
    "nvidia.com/hostdev*",  # NVIDIA's network operator
    "openshift.io/*",  # the SR-IOV network operator, on OpenShift and elsewhere
    "mellanox.com/*",
    "intel.com/*sriov*",  # not all of intel.com: what computes must not be taken for a network card
)
NATIVE = ("cpu", "memory", "ephemeral-storage")
HUGE_PAGES = "hugepages-"
MIG = "/mig-"
MOST_GPUS = 64  # of a pod, as spec.processesPerNode
_EXTENDED = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?", re.ASCII)


@dataclass(frozen=True)
class Devices:
    """Names of extended resources, or globs of them: which are GPUs, and which are known to be none."""

    gpus: tuple[str, ...] = GPU_RESOURCES
    others: tuple[str, ...] = OTHER_RESOURCES

    def are_gpus(self, resource: str) -> bool:
        return any(fnmatchcase(resource, name) for name in self.gpus)

    def know(self, resource: str) -> bool:
        return self.are_gpus(resource) or any(fnmatchcase(resource, name) for name in self.others)


DEFAULT_DEVICES = Devices()  # the chart's


def without_null(quantities: Any) -> Any:
    """The API server drops a null."""
    if not isinstance(quantities, dict):
        return quantities
    return {name: quantity for name, quantity in quantities.items() if quantity is not None}


Quantities = Annotated[dict[str, Quantity], BeforeValidator(without_null)]


class Resources(Spec):
    """Kubernetes resource requirements."""

    limits: Quantities = Field(default_factory=dict, description="Quantities, such as nvidia.com/gpu: 8.")
    requests: Quantities = Field(default_factory=dict, description="Quantities; default: the limits.")

    _devices: Devices = PrivateAttr(default=DEFAULT_DEVICES)

    def model_post_init(self, context: Any) -> None:
        """``context``: of the validation, from whoever knows the operator's settings."""
        if context:
            self._devices = context["devices"]

    @property
    def devices(self) -> Devices:
        return self._devices

    @property
    def gpu_counts(self) -> dict[str, int]:
        """Of a pod, by name; of one kind if the spec is valid."""
        named = {name: quantity for name, quantity in self.limits.items() if self.devices.are_gpus(name)}
        return {name: count for name, quantity in named.items() if (count := whole(quantity))}

    @property
    def gpu_resource(self) -> str:
        """The name of the pod's GPUs; where it has none, the one to ask for."""
        return next(iter(self.gpu_counts), self.devices.gpus[0])

    @property
    def gpus(self) -> int:
        """GPUs of a pod, of whatever name."""
        return sum(self.gpu_counts.values())

    @property
    def cpus(self) -> Fraction | None:
        """CPUs of a pod by its limit, else its request; None if it has neither."""
        cpus = self.limits.get("cpu", self.requests.get("cpu"))
        return None if cpus is None else amount(cpus)

    def native(self) -> Resources:
        """Without devices."""
        return Resources(
            limits={name: quantity for name, quantity in self.limits.items() if is_native(name)},
            requests={name: quantity for name, quantity in self.requests.items() if is_native(name)},
        )


def is_native(resource: str) -> bool:
    return resource in NATIVE or resource.startswith(HUGE_PAGES)


def resource_problems(resources: Resources, path: str) -> Iterator[str]:
    """What a pod's own validation refuses, and devices that no process could use."""
    for field, quantities in (("limits", resources.limits), ("requests", resources.requests)):
        for name, quantity in quantities.items():
            here = field_path(path, field, name)
            yield from name_problems(resources.devices, name, here)
            yield from count_problems(name, quantity, here)
    for name, quantity in resources.requests.items():
        yield from request_problems(name, quantity, resources.limits.get(name), field_path(path, "requests", name))
    yield from gpu_problems(resources, f"{path}.limits")
    asked = {**resources.limits, **resources.requests}
    huge = next((name for name in asked if name.startswith(HUGE_PAGES)), None)
    if huge and "cpu" not in asked and "memory" not in asked:
        yield f"{field_path(path, 'limits', huge)}: a pod with huge pages must ask for cpu or memory as well; set one"


def name_problems(devices: Devices, name: str, path: str) -> Iterator[str]:
    if is_native(name):
        return
    if not _EXTENDED.fullmatch(name):
        yield (
            f"{path}: {name!r} is no resource of a pod; use {', '.join(NATIVE)}, {HUGE_PAGES}SIZE or the name of a "
            f"device, such as {devices.gpus[0]}"
        )
    elif not devices.know(name):
        yield (
            f"{path}: is neither a GPU ({', '.join(devices.gpus)}) nor another device that the operator knows "
            f"({', '.join(devices.others)}); add the name to the operator's setting gpuResources if it is a GPU, "
            "else to otherResources"
        )


def count_problems(name: str, quantity: str, path: str) -> Iterator[str]:
    """Devices are counted, huge pages are whole."""
    if name in NATIVE:
        return
    if not name.startswith(HUGE_PAGES):
        if whole(quantity) is None:
            yield f"{path}: {quantity!r} is no whole number; devices can't be parted"
        return
    try:
        size = amount(quantity_text(name.removeprefix(HUGE_PAGES)))
    except QuantityError as error:
        yield f"{path}: {error}"
        return
    if not size or (amount(quantity) / size).denominator != 1:
        yield f"{path}: {quantity!r} is no multiple of the size of a page; use a multiple"


def request_problems(name: str, request: str, limit: str | None, path: str) -> Iterator[str]:
    shared = name in NATIVE  # by pods that don't all use what they may
    if not shared and limit is None:
        yield f"{path}: {request} must equal the limit, and there is none; set it under limits and leave it out here"
    elif not shared and limit is not None and amount(request) != amount(limit):
        yield f"{path}: {request} must equal the limit {limit}; leave it out"
    elif limit is not None and amount(request) > amount(limit):
        yield f"{path}: {request} is above the limit {limit}; use at most {limit}"


def gpu_problems(resources: Resources, path: str) -> Iterator[str]:
    counts = resources.gpu_counts
    if len(counts) > 1:
        yield f"{path}: {' and '.join(counts)} are different GPUs, and the pod's processes must be alike; ask for one"
    for name, count in counts.items():
        if MIG in name and count > 1:
            yield f"{field_path(path, name)}: CUDA shows a process one MIG device, not {count}; use 1, or whole GPUs"
        elif count > MOST_GPUS:
            yield f"{field_path(path, name)}: {count} is above {MOST_GPUS}, the most of a pod; use more nodes"
