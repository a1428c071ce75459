"""With which adapter a stage may go on: what it publishes is one of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import Lora
from llm_trainer.models.adapter import check_start
from llm_trainer.runtime.errors import ConfigurationError
from tests.trainer.conftest import SFT, stage_config

MODULES = ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    ("before", "lora", "says"),
    [
        ({}, {}, None),
        ({"use_dora": True}, {}, "two can't be joined"),
        ({}, {"dora": True}, "two can't be joined"),
        ({"target_parameters": ["mlp.experts.down_proj"]}, {}, "two can't be joined"),
        ({}, {"experts": True}, "two can't be joined"),
        ({"target_modules": ["q_proj"]}, {}, "adapter .* of q_proj, and both must adapt the same modules"),
    ],
)
def test_adapters_that_make_one(before: dict[str, Any], lora: dict[str, Any], says: str | None, tmp_path: Path) -> None:
    """Told when the stage starts, and not by a failed publish at its end, or by a wrong adapter."""
    uri = "pvc://models/run/stages/a/results/step-00000001"
    config = stage_config(tmp_path, "b", model={"uri": uri}, sft=SFT)
    folder = Path(config.model_folder or "")
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"target_modules": MODULES, **before}))
    if says is None:
        check_start(config, Lora.model_validate(lora), reversed(MODULES))
        return
    with pytest.raises(ConfigurationError, match=says):
        check_start(config, Lora.model_validate(lora), MODULES)
