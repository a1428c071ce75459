"""For every test: none fails by time, and that holds for the examples of hypothesis too. The report at the end."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.report import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]

EXAMPLES = 40  # of each property; before a release ten times as many
ours = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=EXAMPLES)
settings.register_profile("llm-operator", ours)
settings.register_profile("release", ours, max_examples=10 * EXAMPLES)
settings.load_profile("llm-operator")


# A shell starts what runs in its background with SIGINT ignored, which programs that tests start would take over.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)  # a machine that one carries the tests to may have no xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of `--dist loadscope`, which `make test` says; others stay xdist's own."""
    if config.option.dist != "loadscope":
        return None
    from tests.lanes import Lanes

    return Lanes(config, log)
