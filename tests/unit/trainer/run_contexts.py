"""What tests of the prepare step share: a run whose manifest is in a file, and a pod's folders around it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainyard.trainer.context import RunContext, read_context
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import read_committed


def context_of(tmp_path: Path, spec: dict[str, Any]) -> RunContext:
    """The prepare step of a run with this spec."""
    manifest = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "r", "uid": "u"},
        "spec": spec,
    }
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    environment = {
        "RUN_FILE": "run.json",
        "WORK_DIR": "volume/r-u",
        "VOLUMES_DIR": "volumes",
        "CACHE_DIR": "cache",
        "SECRETS_DIR": "secrets",
    }
    made = read_context("prepare", {f"TRAINYARD_{k}": str(tmp_path / v) for k, v in environment.items()})
    made.work_dir.mkdir(parents=True, exist_ok=True)
    return made


def prepared(made: RunContext, tmp_path: Path, *, prepare: Callable[[RunContext, Reporter], None]) -> dict[str, Any]:
    """What the step has written down about the data."""
    prepare(made, Reporter("prepare", 1))
    committed = read_committed(made.data_dir)
    assert committed is not None
    return dict(committed.manifest)
