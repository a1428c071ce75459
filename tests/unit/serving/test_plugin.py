"""The plugin of vLLM in the trainer image; tests/e2e/test_families.py tells what it does."""

from __future__ import annotations

from importlib.metadata import entry_points

import llm_server.plugin


def test_vllm_finds_it() -> None:
    [found] = entry_points(group="vllm.general_plugins", name="llm_server")
    assert found.load() is llm_server.plugin.register
    [found] = entry_points(group="vllm.platform_plugins", name="llm_server")
    assert found.load() is llm_server.plugin.platform
