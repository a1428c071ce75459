"""Quantities as people write them, and what of a pod's resources is right or wrong: for pydantic and the API server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Quantities = dict[str, Any]

# As YAML or JSON gives it → as a pod's manifest has it.
RIGHT_QUANTITIES: tuple[tuple[object, str], ...] = (
    (1, "1"), (0, "0"), (0.5, "0.5"), (8e9, "8000000000"), (2e-05, "0.00002"), ("0.5", "0.5"), ("500m", "500m"),
    ("64Gi", "64Gi"), ("64G", "64G"), ("1e3", "1e3"), ("1E3", "1E3"), ("1e0", "1e0"), ("1.0e+1", "1.0e+1"),
    ("1E", "1E"), ("1Ei", "1Ei"), ("1k", "1k"), ("1Ki", "1Ki"), ("100n", "100n"), ("100u", "100u"), ("1.", "1."),
    (".5", ".5"), ("+1", "+1"), (" 64Gi ", "64Gi"), (1 << 53, "9007199254740992"),
)  # fmt: skip
# ``says`` stands in pydantic's answer; the API server refuses them too, here and in a pod.
WRONG_QUANTITIES: tuple[tuple[object, str], ...] = (
    ("64GB", "'64GB' is no quantity; write 64G or 64Gi"), ("64 Gi", "write 64G or 64Gi"),
    ("64gib", "write 64G or 64Gi"), ("64K", "write 64k or 64Ki"), ("1.5 mb", "write 1.5M or 1.5Mi"),
    ("two", "is no quantity"), ("64Gi\n", "is no quantity"),
    ("", "is no quantity"), ("1e", "is no quantity"), ("0x10", "is no quantity"),
    ("1,5", "is no quantity"), ("1_000", "is no quantity"), ("NaN", "is no quantity"),
    (-1, "-1 is below 0"), (-0.5, "-0.5 is below 0"), ("-1", "is below 0"), ("-1Gi", "is below 0"),
    (True, "true is no quantity"), (False, "false is no quantity"), ({}, "an object is no quantity"),
    ({"a": 1}, "an object is no quantity"), ([], "a list is no quantity"), ([1], "a list is no quantity"),
)  # fmt: skip
# A pod takes them, and counts with 2**63 - 1. The CRD sees that of the first two.
TOO_LARGE = (1e30, "1" * 65, "10E", "8Ei", "1e99", "9223372036854775808")


@dataclass(frozen=True)
class Case:
    """``field`` and ``says`` stand in the problem; without ``says`` it is right."""

    name: str
    limits: Quantities
    requests: Quantities = field(default_factory=dict)
    field: str = ""
    says: str = ""

    @property
    def resources(self) -> dict[str, Quantities]:
        return {"limits": self.limits, "requests": self.requests}


# A pod's own validation decides each of these in the same way.
POD_CASES = (
    Case("nothing", {}),
    Case("less requested than allowed", {"cpu": 2, "memory": "2Gi"}, {"cpu": 0.5, "memory": "2G"}),
    Case("more requested than allowed", {"cpu": "1500m"}, {"cpu": 1.6}, "requests.cpu", "above the limit 1500m"),
    Case("requested in another unit", {"memory": "1Gi"}, {"memory": 1073741825}, "requests.memory", "above the limit"),
    Case("requests alone", {}, {"cpu": 2, "memory": "1Gi", "ephemeral-storage": "1Gi"}),
    Case("part of a byte", {"memory": "500m"}),
    Case("a whole GPU in other words", {"nvidia.com/gpu": "1e0"}, {"nvidia.com/gpu": "1000m"}),
    Case("half a GPU", {"nvidia.com/gpu": "500m"}, {}, "limits[nvidia.com/gpu]", "no whole number"),
    Case("half a card", {"rdma/hca": 0.5}, {}, "limits[rdma/hca]", "no whole number"),
    Case("GPUs requested alone", {}, {"nvidia.com/gpu": 1}, "requests[nvidia.com/gpu]", "must equal the limit"),
    Case("fewer GPUs requested", {"amd.com/gpu": 2}, {"amd.com/gpu": 1}, "requests[amd.com/gpu]", "equal the limit 2"),
    Case("a card requested alone", {}, {"rdma/hca": 1}, "requests[rdma/hca]", "must equal the limit"),
    Case("huge pages", {"hugepages-2Mi": "4Mi", "cpu": 1}),
    Case("half a huge page", {"hugepages-2Mi": "3Mi", "cpu": 1}, {}, "limits[hugepages-2Mi]", "no multiple"),
    Case("pages of no size", {"hugepages-x": "2Mi", "cpu": 1}, {}, "limits[hugepages-x]", "'x' is no quantity"),
    Case("huge pages alone", {"hugepages-2Mi": "4Mi"}, {}, "limits[hugepages-2Mi]", "cpu or memory"),
    Case("fewer pages requested", {"hugepages-2Mi": "4Mi", "cpu": 1}, {"hugepages-2Mi": "2Mi"},
         "requests[hugepages-2Mi]", "must equal the limit"),
    Case("a resource that isn't there", {"gpu": 1}, {}, "limits.gpu", "'gpu' is no resource of a pod"),
    Case("a name that is none", {"rdma/a/b": 1}, {}, "limits[rdma/a/b]", "is no resource of a pod"),
    Case("pods in a pod", {"pods": 1}, {}, "limits.pods", "is no resource of a pod"),
)  # fmt: skip
# A pod would be made, and would not do what was meant.
DEVICE_CASES = (
    Case("AMD", {"amd.com/gpu": 8, "rdma/hca": 8}),
    Case("a MIG slice", {"nvidia.com/mig-3g.40gb": 1}),
    Case("shared", {"nvidia.com/gpu.shared": 1}),
    Case("AWS", {"nvidia.com/gpu": 8, "vpc.amazonaws.com/efa": 32}),
    Case("GPUs of an override to CPU", {"nvidia.com/gpu": 0, "amd.com/gpu": 1}),
    Case("an accelerator that nobody knows", {"habana.ai/gaudi": 8}, {}, "limits[habana.ai/gaudi]",
         "setting gpuResources"),
    Case("two MIG slices", {"nvidia.com/mig-3g.40gb": 2}, {}, "limits[nvidia.com/mig-3g.40gb]", "one MIG device"),
    Case("two kinds of GPU", {"nvidia.com/gpu": 1, "amd.com/gpu": 1}, {}, "limits", "are different GPUs"),
    Case("two kinds of MIG slice", {"nvidia.com/mig-3g.40gb": 1, "nvidia.com/mig-1g.10gb": 1}, {}, "limits",
         "are different GPUs"),
    Case("more GPUs than a node has", {"nvidia.com/gpu": "1k"}, {}, "limits[nvidia.com/gpu]", "is above 64"),
)  # fmt: skip
