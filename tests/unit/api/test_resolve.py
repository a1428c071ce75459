from __future__ import annotations

import pytest

from llm_operator.api.common import Resources
from llm_operator.api.resolve import cpus_of


@pytest.mark.parametrize(
    ("limits", "requests", "cpus"),
    [
        ({"cpu": "4"}, {"cpu": "1"}, 4),
        ({}, {"cpu": "100m"}, 1),
        ({}, {"cpu": "2500m"}, 3),
        ({"cpu": "1.5"}, {}, 2),
        ({"memory": "1Gi"}, {}, None),
        ({"cpu": "many"}, {}, None),
    ],
)
def test_cpus_of_a_pod(limits: dict[str, str], requests: dict[str, str], cpus: int | None) -> None:
    assert cpus_of(Resources(limits=limits, requests=requests)) == cpus
