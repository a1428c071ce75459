from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cluster.settings import REPOSITORY


@pytest.fixture(scope="session")
def prometheus() -> Path:
    """The folder of prometheus and promtool."""
    script = REPOSITORY / "tools" / "prometheus.sh"
    return Path(subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
