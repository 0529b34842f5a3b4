"""Mode DryRun for a Tiny Recursive Model: the data is made and thrown away, the network is counted, nothing is trained."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from trainyard.trainer.context import RunContext
from trainyard.trainer.log import say
from trainyard.trainer.reporter import PreparedDataset, Reporter
from trainyard.trainer.trm.folder import read_split
from trainyard.trainer.trm.prepare import build
from trainyard.trainer.trm.train import make_shape, total_steps
from trainyard.trainer.volume.commit import commit_folder

BYTES_PER_WEIGHT = 16
"""Weight, gradient, two moments; the average is a fifth, and a checkpoint's copy of the best is on disk."""


def validate(context: RunContext, reporter: Reporter) -> None:
    """Check and report.

    Raises:
        UserError: what the prepare step or the network would refuse.
    """
    reporter.report(phase="validate", percentage=0.0)
    context.work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-validate-", dir=context.work_dir) as place:
        folder = Path(place)
        facts = build(context, folder)
        shape = make_shape(context, read_split(folder / "train", name="train"))
    training = context.training
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps
    activations = 4 * shape.positions * shape.l_layers * (shape.l_cycles + 1)
    activations *= 3 * shape.hidden_size + 3 * shape.inner(shape.hidden_size)
    memory = shape.parameters * BYTES_PER_WEIGHT + activations * training.per_device_train_batch_size
    report: dict[str, Any] = {
        "run": context.run.metadata.name,
        "data": {k: facts[k] for k in ("digest", "splits", "vocabSize", "groups", "task")},
        "model": {"architecture": "trm", "parameters": shape.parameters, "estimatedMemoryBytes": memory},
        "training": {"steps": total_steps(context, groups=facts["groups"]), "batch": batch},
    }
    say(
        f"model: {shape.parameters:,} parameters on {shape.positions} positions; training takes about {memory / 1e9:.2f} GB\n"
        f"training: {report['training']['steps']:,} steps of {batch} examples, {facts['groups']} groups"
    )
    commit_folder(context.work_dir / "validation", lambda to: _write(to, report))
    splits = {name: one["records"] for name, one in facts["splits"].items() if one["records"]}
    reporter.report(
        dataset=PreparedDataset(digest=facts["digest"], records=sum(splits.values()), splits=splits),
        effective={**report["model"], **report["training"]},
        percentage=100.0,
        milestone=True,
    )


def _write(folder: Path, report: dict[str, Any]) -> None:
    (folder / "report.json").write_text(json.dumps(report, indent=1))
