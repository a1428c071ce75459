"""What vLLM 0.31 needs to answer on every kind of CPU as transformers does. It loads this as one of its plugins."""
