"""What runs in the pods of an LLMApp: a Job that makes an index of documents, and a server before a served model."""
