"""What `plan` says of what a training fetches and publishes."""

from __future__ import annotations

import json
from email.message import Message
from urllib.error import HTTPError
from urllib.request import Request

import pytest

from llm_operator.api.validation import load_training
from llm_operator.plan import describe
from llm_operator.remote_sizes import describe_inputs
from tests.right_trainings import RIGHT_TRAININGS


def test_what_is_fetched_and_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    asked: list[str] = []

    def ask(request: Request) -> tuple[dict[str, str], bytes]:
        asked.append(f"{request.get_method()} {request.full_url} {request.get_header('Authorization')}")
        if request.get_method() == "HEAD":
            raise HTTPError(request.full_url, 403, "no", Message(), None)
        siblings = [
            {"rfilename": "config.json", "size": 1000}, {"rfilename": "model.safetensors", "size": 2_000_000_000},
            {"rfilename": "pytorch_model.bin", "size": 9_000_000_000}, {"rfilename": "tokenizer/tokenizer.json"},
        ]  # fmt: skip
        return {}, json.dumps({"sha": "abcdef0123456789", "siblings": siblings}).encode()

    spec = load_training(RIGHT_TRAININGS["from a hub, a bucket and a server"])
    assert list(describe_inputs(spec, ask)) == [
        "hf://team/model@v1.0: 2 GB in 2 files, revision abcdef012345",
        "hf://team/model/tokenizer: 0 bytes in 1 file, revision abcdef012345",
        "s3://corpora/ja/**/*.jsonl.gz: a bucket, which is not asked; data preparation tells its size",
        "https://example.com:8443/chat.jsonl: not known, it answers 403",
    ]
    assert asked[0] == "GET https://huggingface.co/api/models/team/model/revision/v1.0?blobs=true Bearer hf_secret"
    assert not [line for line in asked if line.startswith("HEAD") and "hf_secret" in line]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not asked, as HF_HUB_OFFLINE is set" in next(describe_inputs(spec, ask))
    lines = "\n".join(describe("chat", load_training(RIGHT_TRAININGS["published to a bucket and a hub"])))
    assert "publishes  base to s3://models/team/base\n" in lines
    assert "chat to hf://team/chat, private if it is made" in lines
