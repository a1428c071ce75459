"""A Kubernetes operator that takes a language model from raw text to a served product."""
