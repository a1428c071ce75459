"""For every test: none fails by time, and that holds for the examples of hypothesis too. The report at the end."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.report import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]

settings.register_profile("llm-operator", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("llm-operator")
