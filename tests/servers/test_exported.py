"""A run from its records to a model that answers in Ollama, with files for llama.cpp and MLX and the speed of all three.

The model has hardly learned anything: what it says is decided by next to nothing, and it is handed over all the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.ollama_server import ollama

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1800)]
FIGURES = ("peakBytes", "promptTokensPerSecond", "newTokensPerSecond", "firstTokenSeconds")


def manifest(url: str) -> dict[str, Any]:
    texts = [
        f"paragraph {n}: the train number {n * n % 97} stops at station {n % 7} and waits {n % 5} minutes"
        for n in range(200)
    ]
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "tiny"},
        "spec": {
            "model": {"scratch": {"architecture": "llama", "config": sizes, "tokenizer": {"trainVocabSize": 500}}},
            "datasets": [
                {"name": "stations", "inline": {"records": [{"text": text} for text in texts]}, "split": {"eval": 0.1}}
            ],
            "training": {"method": "Pretrain", "maxSteps": 12, "maxLength": 64, "precision": "FP32"},
            "exports": [
                {"name": "file", "gguf": {"quantizations": ["f16", "Q8_0"]}},
                {"name": "apple", "mlx": {"bits": 4}},
                {"name": "serve", "dependsOn": ["file"], "ollama": {"url": url, "model": "tiny:v1"}},
                {
                    "name": "speed",
                    "dependsOn": ["file", "apple", "serve"],
                    "benchmark": {"promptTokens": 32, "newTokens": 16, "repetitions": 2},
                },
            ],
        },
    }


def test_from_records_to_an_answer_in_ollama_and_its_speed(tmp_path: Path) -> None:
    file, work = tmp_path / "run.yaml", tmp_path / "work"
    (tmp_path / "ollama").mkdir()
    with ollama(tmp_path / "ollama") as server:
        file.write_text(yaml.safe_dump(manifest(server.url)))
        done = subprocess.run(
            [sys.executable, "-m", "trainyard.cli.main", "run", "--local", "-f", str(file), "--workdir", str(work)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    measured = json.loads((work / "exports/speed/benchmark.json").read_text())["artefacts"]
    assert measured.keys() == {"tiny-f16.gguf", "tiny-Q8_0.gguf", "apple", "serve"}
    for name, figures in measured.items():
        assert all(figures[figure] > 0 for figure in FIGURES), name
    served = json.loads((work / "exports/serve.json").read_text())
    assert "sha256:" in json.dumps(served)
    assert "questions" in json.dumps(served)
