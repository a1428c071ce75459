"""Probes of a serving pod. Pure.

In the trainer image the launcher asks vLLM for a first token, watches its engine and answers the kubelet
(trainer_image/llm_server/watch.py). Of any other image it is only known that it has vLLM and Python: the startup probe
asks for the token by the same program, and what comes later is for vLLM's /health to say.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

from llm_server import first_token

FIRST_TOKEN = inspect.getsource(first_token)
LOOK_SECONDS = 60  # a look waits inside: no look may take longer than the time to the next, or the seconds don't add up
LOOK_MARGIN_SECONDS = 3  # a look ends by itself before the kubelet kills it
STARTUP_PERIOD_SECONDS = 2
STARTUP_MARGIN_SECONDS = 30  # the launcher ends vLLM at the timeout and says why; the kubelet, if it can't


def launcher_probes(startup_timeout_seconds: int) -> dict[str, Any]:
    def look(path: str, period: int, timeout: int, failures: int) -> dict[str, Any]:
        return {
            "httpGet": {"path": path, "port": "health"},
            "periodSeconds": period,
            "timeoutSeconds": timeout,
            "failureThreshold": failures,
        }

    startup = math.ceil((startup_timeout_seconds + STARTUP_MARGIN_SECONDS) / STARTUP_PERIOD_SECONDS)
    return {
        "startupProbe": look("/startup", STARTUP_PERIOD_SECONDS, STARTUP_PERIOD_SECONDS, startup),
        "readinessProbe": look("/ready", 2, 5, 2),
        "livenessProbe": look("/live", 10, 5, 6),
    }


def probes(host: str, port: int, model: str, startup_timeout_seconds: int, *, tls: bool = False) -> dict[str, Any]:
    """``host``, ``port``: where vLLM listens; ``model``: a name by which it is asked."""
    scheme = {"scheme": "HTTPS"} if tls else {}  # the kubelet asks for no certificate that it knows
    health = {"httpGet": {"path": "/health", "port": "http", **scheme}, "timeoutSeconds": 5}
    period = look_seconds(startup_timeout_seconds)
    inside = str(period - LOOK_MARGIN_SECONDS)
    asked = [inside, host, str(port), model, *(["https"] if tls else [])]
    return {
        "startupProbe": {
            "exec": {"command": ["python3", "-I", "-S", "-c", FIRST_TOKEN, *asked]},
            "timeoutSeconds": period,
            "periodSeconds": period,
            "failureThreshold": math.ceil(startup_timeout_seconds / period),
        },
        "readinessProbe": {**health, "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {**health, "periodSeconds": 10, "failureThreshold": 6},
    }


def look_seconds(timeout: int) -> int:
    """Of which a whole number comes nearest to the timeout, from above; the longest of them."""
    longest = min(timeout, LOOK_SECONDS)
    return min(range(longest, math.ceil(longest / 2) - 1, -1), key=lambda seconds: -timeout % seconds)
