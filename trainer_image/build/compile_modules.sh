#!/bin/sh
# Compile the modules that stages and vLLM import. A pod can't keep bytecode: it would compile them again at each start.
set -eu
env -u PYTHONDONTWRITEBYTECODE HF_HUB_OFFLINE=1 HOME=/tmp python - << 'END'
import importlib

MODULES = """
torch._dynamo torch._inductor.config
deepspeed deepspeed.runtime.zero.muon.muon_optimizer deepspeed.ops.adam accelerate peft datasets pyarrow.parquet safetensors.torch
trl.trainer.sft_trainer trl.trainer.reward_trainer trl.trainer.dpo_trainer trl.trainer.kto_trainer
trl.trainer.grpo_trainer trl.models.utils trl.trainer.utils
vllm.entrypoints.cli.main vllm.entrypoints.openai.api_server vllm.v1.engine.core vllm.v1.worker.cpu_worker
vllm.model_executor.layers.mamba.mamba_mixer2
"""
FAMILIES = "gpt2 llama qwen3 mixtral qwen3_moe deepseek_v3 mamba mamba2 jamba"

for name in [*MODULES.split(), *(f"transformers.models.{family}.modeling_{family}" for family in FAMILIES.split())]:
    try:
        importlib.import_module(name)
    except Exception as error:  # such as a kernel that wants a GPU: it is compiled at each start then
        print(f"not compiled: {name}: {error}")
END

# What vLLM's server and its engine import late.
cd "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
env -u PYTHONDONTWRITEBYTECODE python -m compileall -q vllm/entrypoints vllm/v1 vllm/distributed vllm/utils \
  vllm/plugins vllm/model_executor/layers/fused_moe/oracle vllm/model_executor/layers/quantization/online \
  compressed_tensors prometheus_fastapi_instrumentator jmespath starlette model_hosting_container_standards pydantic uvicorn websockets httptools loguru zmq
