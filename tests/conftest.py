"""For every test: none fails by time, and that holds for the examples of hypothesis too."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("llm-operator", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("llm-operator")
