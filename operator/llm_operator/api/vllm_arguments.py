"""Arguments of `vllm serve` that a user can't give, because a field says the same or the pod needs them as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_server.arguments import given, whole_number

ADDRESS = "is fixed, because the Service and the probes ask there; remove it"
TLS = "is given by spec.tls; name the Secret there"
CLIENTS = "would keep the probes out, which have no certificate; ask for those of clients in a Gateway or a mesh"
ONE_POD = "spreads an engine over several pods, and here each pod is one; remove it"
NO_SERVER = "leaves the pod without the HTTP server that the Service and the probes ask; remove it"
ENDS = "ends vLLM at once; remove it"

# Why it is refused and what to do, by the flag.
RESERVED = {
    "--host": ADDRESS,
    "--port": ADDRESS,
    "--uds": ADDRESS,
    "--model": "is given by spec.model; set it there",
    "--served-model-name": "is given by spec.servedModelName; set it and spec.servedModelAliases",
    "--max-model-len": "is given by spec.maxModelLength; set it",
    "--dtype": "is given by spec.dataType; set it",
    "--enable-lora": "is given with spec.adapters; list the adapters there",
    "--lora-modules": "would take the place of spec.adapters; list all there",
    "--max-lora-rank": "follows from spec.adapters; set their rank",
    "--shutdown-timeout": "is given by spec.drainTimeoutSeconds; set it",
    "--api-key": "would stand readable in the spec; put it into a Secret and name that in spec.apiKey",
    "--config": "reads a file that could set any of what is refused here; give its lines as arguments",
    "--ssl-keyfile": TLS,
    "--ssl-certfile": TLS,
    "--ssl-ca-certs": CLIENTS,
    "--ssl-cert-reqs": CLIENTS,
    "--ssl-ciphers": "could leave none that the probes know; choose them in a Gateway or a mesh",
    "--enable-ssl-refresh": TLS,
    "--headless": NO_SERVER,
    "--grpc": NO_SERVER,
    "--nnodes": ONE_POD,
    "--node-rank": ONE_POD,
    "--master-addr": ONE_POD,
    "--master-port": ONE_POD,
    "--data-parallel-rank": ONE_POD,
    "--data-parallel-start-rank": ONE_POD,
    "--data-parallel-address": ONE_POD,
    "--data-parallel-hybrid-lb": ONE_POD,
    "--data-parallel-external-lb": ONE_POD,
    "--data-parallel-multi-port-external-lb": ONE_POD,
    "--trust-remote-code": "would run what lies beside the weights; serve a model that vLLM knows, or remove it",
    "--help": ENDS,
}


def argument_problems(arguments: Sequence[str], path: str, *, chat_template: bool) -> Iterator[str]:
    """``chat_template``: whether the spec has one."""
    if arguments and not arguments[0].startswith("-"):
        yield f"{path}[0]: {arguments[0]!r} would be the model; write flags, and the model in spec.model"
    if "--" in arguments:
        yield f"{path}: '--' ends the flags; remove it"
    for written, flag, values in given(arguments):
        if why := RESERVED.get(flag):
            yield f"{path}: {written if written == flag else f'{written} ({flag})'} {why}"
        elif flag == "--chat-template" and chat_template:
            yield f"{path}: {written} stands beside spec.chatTemplate; remove one"
        elif flag == "--api-server-count" and values and whole_number(values[0]) == 0:
            yield f"{path}: {written} 0 {NO_SERVER}"
