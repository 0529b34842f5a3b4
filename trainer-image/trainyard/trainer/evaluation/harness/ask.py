"""The harness as the evaluate step asks it: a process without the internet, and its findings as metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.api.run.harness import Harness
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import first_line, invalid_config
from trainyard.trainer.evaluation.harness import process
from trainyard.trainer.evaluation.harness.tasks import FIELD, PLAIN, check_task, folder
from trainyard.trainer.log import say

HARNESS = Path(sys.prefix) / "harness"
"""Beside the packages of this Python, in the image and in a development environment."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}


@dataclass(frozen=True)
class Asked:
    """`metrics` by `task/metric` (with a filter: `task/metric.filter`); `rows`: what each record got."""

    metrics: Mapping[str, float]
    rows: Sequence[Mapping[str, Any]]


def ask(
    context: RunContext, spec: Harness, model: Path, *, device: str, dtype: str, batch: int, harness: Path = HARNESS
) -> Asked:
    """Ask all tasks of the model in a folder.

    Raises:
        UserError: a task is not what it was before the training, or the harness refuses it.
    """
    if not harness.is_dir():
        raise invalid_config(
            f"{FIELD}: lm-evaluation-harness is not in {harness}",
            hint="on a developer's machine `make venv` puts it there; an image of your own needs trainer-image/requirements-harness.lock",
        )
    there, started = folder(context, spec), time.monotonic()
    for name in spec.tasks:  # somebody may have written there since
        check_task(there, *there.task(name))
    with tempfile.TemporaryDirectory() as scratch:
        request = Path(scratch) / "request.json"
        wanted = {
            "model": str(model),
            "include": str(there.path),
            "tasks": spec.tasks,
            "limit": spec.limit,
            "batch": batch,
            "device": device,
            "dtype": dtype,
            "out": scratch,
        }
        request.write_text(json.dumps(wanted))
        words = [sys.executable, str(Path(process.__file__)), str(harness), str(request)]
        environment = {**os.environ, **OFFLINE, "HF_HOME": scratch, "PYTHONSAFEPATH": "1"}
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        if done.returncode < 0:
            raise MemoryError(f"lm-evaluation-harness was ended by signal {-done.returncode}")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word about why"])[-1]
            raise invalid_config(
                f"{FIELD}: lm-evaluation-harness refuses: {first_line(last)}",
                hint=f"the model is kept; correct the task, or take {FIELD} out",
            )
        found = json.loads((Path(scratch) / process.RESULTS).read_text())
        rows = [json.loads(line) for line in (Path(scratch) / process.RECORDS).read_text().splitlines()]
    metrics = metrics_of(found["results"])
    told = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    say(f"lm-evaluation-harness: {told}, after {time.monotonic() - started:.1f} s")
    return Asked(metrics, rows)


def metrics_of(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Names without the harness's own marks (`acc,none`), which trackers refuse. Errors of estimates are left out."""
    found = {}
    for task, entries in results.items():
        for name, value in entries.items():
            metric, comma, kind = name.partition(",")
            if comma and isinstance(value, int | float) and not metric.endswith("_stderr"):
                found[f"{task}/{metric}" if kind == PLAIN else f"{task}/{metric}.{kind}"] = float(value)
    return found
