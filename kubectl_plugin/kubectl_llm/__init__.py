"""`kubectl llm`: a plugin of kubectl, of the standard library alone."""
