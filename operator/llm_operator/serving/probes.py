"""Probes of a serving pod. Pure.

vLLM's /health says 200 as soon as the port is open, even if the engine will die of its first request (seen: a head size
for which the CPU has no attention kernel). So the startup probe asks for one token: a pod that can't answer never takes
the place of one that can.
"""

from __future__ import annotations

from typing import Any

from llm_operator.serving.names import PORT

FIRST_REQUEST = """
import http.client, json, sys
port, model = sys.argv[1:]
body = json.dumps({"model": model, "prompt": [0], "max_tokens": 1})
server = http.client.HTTPConnection("127.0.0.1", int(port))
try:
    server.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    status = server.getresponse().status
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"not listening yet: {error}")
# a refusal (an API key, a model that doesn't generate) is an answer too
sys.exit(f"the first request failed: HTTP {status}" if status >= 500 else 0)
"""
STARTUP_PERIOD_SECONDS = 5  # every look costs a process, on a CPU that the start itself needs


def probes(model_name: str, startup_timeout_seconds: int) -> dict[str, Any]:
    health = {"httpGet": {"path": "/health", "port": "http"}, "timeoutSeconds": 5}
    return {
        "startupProbe": {
            "exec": {"command": ["python3", "-I", "-S", "-c", FIRST_REQUEST, str(PORT), model_name]},
            "timeoutSeconds": 60,
            "periodSeconds": STARTUP_PERIOD_SECONDS,
            "failureThreshold": max(1, startup_timeout_seconds // STARTUP_PERIOD_SECONDS),
        },
        "readinessProbe": {**health, "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {**health, "periodSeconds": 10, "failureThreshold": 6},
    }
