"""Probes of a serving pod. Pure.

vLLM's /health says 200 as soon as the port is open, even if the engine will die of its first request (seen: a head size
for which the CPU has no attention kernel). So the startup probe asks for one token: a pod that can't answer never takes
the place of one that can.
"""

from __future__ import annotations

from typing import Any

from llm_operator.serving.names import PORT

FIRST_REQUEST = """
import json, sys, urllib.error, urllib.request
url, model = sys.argv[1:]
body = json.dumps({"model": model, "prompt": [0], "max_tokens": 1}).encode()
try:
    urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"}))
except urllib.error.HTTPError as error:  # a refusal (an API key, a model that doesn't generate) is an answer too
    sys.exit(f"the first request failed: {error}" if error.code >= 500 else 0)
except OSError as error:
    sys.exit(f"not listening yet: {error}")
"""


def probes(model_name: str, startup_timeout_seconds: int) -> dict[str, Any]:
    health = {"httpGet": {"path": "/health", "port": "http"}, "timeoutSeconds": 5}
    url = f"http://127.0.0.1:{PORT}/v1/completions"
    return {
        "startupProbe": {
            "exec": {"command": ["python3", "-c", FIRST_REQUEST, url, model_name]},
            "timeoutSeconds": 60,
            "periodSeconds": 2,
            "failureThreshold": max(1, startup_timeout_seconds // 2),
        },
        "readinessProbe": {**health, "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {**health, "periodSeconds": 10, "failureThreshold": 6},
    }
