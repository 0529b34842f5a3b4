"""Exports to gguf, ollama, mlx and benchmark: all fields, and what breaks their rules."""

from typing import Any

GGUF = {"name": "files", "gguf": {"quantizations": ["Q4_K_M", "f16"], "fileName": "{agent}-{version}"}}
SERVED = {
    "name": "serve",
    "dependsOn": ["files"],
    "ollama": {
        "url": "http://ollama.models:11434",
        "model": "{agent}:{version}",
        "quantization": "Q4_K_M",
        "secretRef": {"name": "ollama"},
        "keepAlive": "1h30m",
    },
}
MLX = {"name": "apple", "mlx": {"bits": 4, "groupSize": 64}}
SPEED = {
    "name": "speed",
    "dependsOn": ["files", "serve", "apple"],
    "benchmark": {"promptTokens": 64, "newTokens": 16, "repetitions": 2},
}
EXPORTS: list[dict[str, Any]] = [GGUF, SERVED, MLX, SPEED]
EACH = tuple([export, *(other for other in EXPORTS if other is not export)] for export in EXPORTS)
"""Each target first, because fields are looked for in the first of a list."""
BROKEN: tuple[tuple[str, list[dict[str, Any]], list[dict[str, Any]]], ...] = (
    (
        "groupSize belongs to a quantization",
        [{"name": "a", "mlx": {"groupSize": 64}}],
        [{"name": "a", "mlx": {"bits": 4}}],
    ),
    (
        "a benchmark measures what other exports",
        [{"name": "b", "benchmark": {}}],
        [GGUF, SPEED | {"dependsOn": ["files"]}],
    ),
)
LANGUAGE_ONLY = "exports with gguf, ollama, mlx take a language model"
WHOLE_ONLY = "exports with gguf, ollama, mlx take a whole model"
