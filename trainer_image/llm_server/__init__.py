"""What vLLM 0.31 needs on CPU: to answer on every kind as transformers does, and to start fast. Its plugin."""
