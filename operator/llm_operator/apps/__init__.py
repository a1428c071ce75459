"""The controller of LLMApp: what is built on a served model."""
