"""The third source's line for a dry run, as it is printed there, in a folder like its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import ROOT
from tests.training.small_llama import small_llama

pytestmark = pytest.mark.slow

LINE = "cd training; python train_sft_tunix.py --config configs/sft_tiny.yaml --dry-run"
CONFIG = {
    "dataset": {"manifest_path": "backend/datasets/test-v1/manifest.json", "format": "training_example"},
    "model": {"base_model": "./models/tiny"},
    "training": {"num_epochs": 3, "batch_size": 4, "learning_rate": "2e-5", "warmup_steps": 100},
    "output": {"run_dir": "artifacts/training_runs", "checkpoint_every": 500},
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folders: configs, a built dataset with its export beside the manifest, and a model that is small."""
    root = tmp_path_factory.mktemp("repository")
    small_llama(root / "models/tiny")
    (root / "training/configs").mkdir(parents=True)
    (root / "training/configs/sft_tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    shutil.copy(ROOT / "examples/trace-store/train_sft_tunix.py", root / "training")
    data = root / "backend/datasets/test-v1"
    data.mkdir(parents=True)
    manifest = {
        "dataset_key": "test-v1",
        "build_id": "b",
        "dataset_name": "test",
        "dataset_version": "v1",
        "trace_count": 10,
    }
    (data / "manifest.json").write_text(json.dumps(manifest))
    lines = [json.dumps({"prompt": f"What beats card {n}?", "response": f"card {n + 1}"}) for n in range(10)]
    (data / "export.jsonl").write_text("\n".join(lines) + "\n")
    return root


def shell(line: str, repository: Path, programs: Path) -> subprocess.CompletedProcess[str]:
    for name, words in (("trainyard", "-m trainyard.cli.main"), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        program.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    return subprocess.run(["sh", "-c", line], cwd=repository, env=env, capture_output=True, text=True, timeout=240)


def test_a_dry_run_exits_zero(repository: Path, tmp_path: Path) -> None:
    done = shell(LINE, repository, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the run is valid" in done.stdout


def test_a_missing_config_fails(repository: Path, tmp_path: Path) -> None:
    done = shell(LINE.replace("sft_tiny", "none"), repository, tmp_path)
    assert done.returncode != 0
    assert "configs/none.yaml" in done.stderr


def test_a_dataset_that_was_not_built_fails(repository: Path, tmp_path: Path) -> None:
    config = repository / "training/configs/unbuilt.yaml"
    config.write_text(yaml.safe_dump(CONFIG).replace("test-v1", "other-v1"))
    done = shell(LINE.replace("sft_tiny", "unbuilt"), repository, tmp_path)
    assert done.returncode != 0
    assert "backend/datasets/other-v1/manifest.json" in done.stdout + done.stderr
