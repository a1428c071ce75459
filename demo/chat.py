"""Ask a served model through its OpenAI API."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    text: str
    finish_reason: str  # stop: the model ended its answer; length: it was cut

    @property
    def ended(self) -> bool:
        return self.finish_reason == "stop"


def post(url: str, body: dict[str, Any], timeout: float = 120) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 -- an http URL of our own service
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)
    return answer


def ask(base_url: str, model: str, question: str, max_tokens: int = 128, repetition_penalty: float = 1.0) -> Answer:
    """The greedy answer to one question."""
    choice = post(
        f"{base_url}/v1/chat/completions",
        {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": max_tokens,
            "repetition_penalty": repetition_penalty,
        },
    )["choices"][0]
    return Answer(choice["message"]["content"].strip(), choice["finish_reason"])
