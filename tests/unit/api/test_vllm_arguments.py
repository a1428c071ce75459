"""Every way in which vLLM 0.31 takes an argument for one that is refused."""

from __future__ import annotations

import pytest

from llm_operator.api.vllm_arguments import argument_problems


def problems(*arguments: str, chat_template: bool = False) -> list[str]:
    return list(argument_problems(arguments, "spec.extraArguments", chat_template=chat_template))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port=9000"], "--port is fixed"),
        (["--port", "9000"], "--port is fixed"),
        (["--served_model_name=a"], "--served_model_name (--served-model-name) is given by spec.servedModelName"),
        (["--served-model", "a"], "--served-model (--served-model-name)"),
        (["--ssl-k=/x"], "--ssl-k (--ssl-keyfile) is given by spec.tls"),
        (["--no-enable-lora"], "--no-enable-lora (--enable-lora)"),
        (["--max-num-seqs", "4", "--dtype=half"], "spec.dataType"),
        (["--host.x=1"], "--host.x (--host)"),
        (["-n2"], "-n2 (--nnodes) spreads an engine over several pods"),
        (["-n", "2"], "-n (--nnodes)"),
        (["-dpr=1"], "-dpr (--data-parallel-start-rank)"),
        (["--api-server-count=0"], "leaves the pod without the HTTP server"),
        (["--api-server=0"], "leaves the pod without the HTTP server"),
        (["--api-server-count", "00"], "leaves the pod without the HTTP server"),
        (["-asc", "0"], "leaves the pod without the HTTP server"),
        (["--api_key=s3cret"], "put it into a Secret and name that in spec.apiKey"),
        (["other-model"], "'other-model' would be the model"),
        (["--seed=1", "--", "x"], "'--' ends the flags"),
    ],
)
def test_refused(arguments: list[str], says: str) -> None:
    found = problems(*arguments)
    assert len(found) == 1
    assert says in found[0]
    assert "s3cret" not in found[0], "no value is repeated"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-loras=4", "--max-num-seqs", "16"],
        ["-tp", "2", "-pp=2", "--data-parallel-size=2", "-dp", "2"],
        ["-cc.mode=3", "-O3", "--hf-overrides.rope.factor=2", "-ep"],
        ["--config-format=hf", "--model-impl=transformers", "--api-server-count=2", "--runner=pooling"],
        ["--chat-template=/volumes/models/x.jinja", "--seed", "-1"],
    ],
)
def test_accepted(arguments: list[str]) -> None:
    assert not problems(*arguments)


def test_one_chat_template() -> None:
    assert problems("--chat_template=/x", chat_template=True)
