"""Ollama: its API, and the model's chat template as Ollama's own."""
