"""Build what the tests and the demo need, at the same time where that helps. Runs on the machine's own Python."""

from __future__ import annotations

import dataclasses
import fcntl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from tests.cluster import binaries, images, policy_engine, prometheus_operator, s3_gateway, steps
from tests.cluster.settings import CACHE, HERE, LOGS, REPOSITORY
from tests.cluster.steps import Step

PACKAGES = "packages of the machine"
ENVIRONMENT = REPOSITORY / "tools/environment.sh"
INSTALL = """
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -q -y --no-install-recommends "$@"
"""


def ensure(*wanted: str) -> None:
    """Build what is missing of `wanted` (of what every change is tested with when nothing is named), and tell of it.

    Raises:
        StepError: one of the builds failed; the message has its last words.

    """
    if plan(wanted):
        with alone():
            steps.run(plan(wanted), LOGS)


def plan(wanted: Sequence[str]) -> list[Step]:
    """Go's downloads, its compiling, the images and the environment are each a line of steps beside the others."""
    planned = packages() if set(wanted) != {"environment"} else []
    for name in wanted or OF_EVERY_CHANGE:
        # Only Go waits for no package. The environment installs its own, and dpkg lets in one at a time.
        after = () if name in GO else (PACKAGES,)
        planned += [dataclasses.replace(step, after=(*step.after, *after)) for step in PARTS[name]()]
    return planned


def packages() -> list[Step]:
    """Debian packages that are missing."""
    wanted = (HERE / "packages.txt").read_text().split()
    query = ["dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\n", *wanted]
    found = subprocess.run(query, text=True, capture_output=True, check=False).stdout.splitlines()
    names = [name for name in wanted if f"{name} installed" not in found]
    return [Step(PACKAGES, ["bash", "-euc", INSTALL, "install", *names])] if names else []


def environment() -> list[Step]:
    made = subprocess.run([ENVIRONMENT, "--check"], check=False).returncode == 0
    return [] if made else [Step("Python environment", [ENVIRONMENT])]


PARTS: dict[str, Callable[[], list[Step]]] = {
    "environment": environment,
    "images": images.missing,
    "binaries": binaries.missing,
    "policy-engine": policy_engine.KUBE_ROUTER.missing,
    "prometheus-operator": prometheus_operator.PROMETHEUS_OPERATOR.missing,
    "s3-gateway": s3_gateway.VERSITYGW.missing,
}
GO = ("binaries", "s3-gateway")
OF_EVERY_CHANGE = ("environment", "images", "binaries", "s3-gateway")


@contextmanager
def alone() -> Iterator[None]:
    """One build at a time in one cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (CACHE / "build.lock").open("w") as lock:
        while not taken(lock):
            steps.say(f"waiting for another build's end for {steps.duration(time.monotonic() - began)}")
            time.sleep(steps.INTERVAL / 2)
        yield


def taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
