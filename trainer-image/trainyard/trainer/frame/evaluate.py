"""The evaluate step, around what each kind of training measures by itself.

    prepared data  ->  the result  ->  measured already?  ->  the measurement  ->  evaluation/metrics.json, samples.json,
                                                                                   records.jsonl

The files are committed together, with what they are about: a step that is run again on the same model, data and settings
finds them and only tells what stands there.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainyard.trainer.context import RunContext
from trainyard.trainer.data.prepare import open_prepared
from trainyard.trainer.errors import invalid_config, storage
from trainyard.trainer.frame.out_of_memory import EvaluationBatch, fitted, recall
from trainyard.trainer.frame.train import may_reduce
from trainyard.trainer.log import say
from trainyard.trainer.machine.device import Device, find_device
from trainyard.trainer.machine.imports import quick_imports
from trainyard.trainer.machine.missing_gpu import gpus_asked
from trainyard.trainer.reporter import Metrics, Reporter
from trainyard.trainer.volume.commit import Committed, commit_folder, read_committed
from trainyard.trainer.volume.result import find_result


@dataclass(frozen=True)
class Examination:
    """What is measured on what. `context` has the settings that fitted into the training's memory."""

    context: RunContext
    reporter: Reporter
    data: Committed
    split: str
    """train, eval or test,"""
    records: int
    """and how many it has."""
    device: Device
    batch: EvaluationBatch


@dataclass(frozen=True)
class Findings:
    """What came out. `result` is the run's evaluation, and with `details` metrics.json; `metrics` is what trackers get."""

    result: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]
    metrics: Metrics
    records: str = ""
    """The scores of each record, as lines of JSON."""
    details: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)
    """Further files, by their names."""


Measure = Callable[[Examination], Findings | None]
"""None if it was told to stop."""


def evaluate(
    context: RunContext,
    reporter: Reporter,
    *,
    key: Callable[[RunContext], str],
    load: Callable[[], Measure],
) -> None:
    """Measure the result and commit what was found. Does nothing if this very model has been measured.

    Args:
        key: digest of what the prepared data has to be made from.
        load: imports what measures, which takes seconds.

    Raises:
        UserError: there is no model, or nothing is held out.
    """
    reporter.report(phase="load")
    data = open_prepared(context, key(context), reporter)
    result = find_result(context)
    if result is None:
        raise storage(f"there is no trained model in {context.model_dir}", hint="run the train step first")
    spec = context.run.spec.evaluation
    split = spec.split.lower()
    held_out = data.manifest["splits"][split]
    if not held_out["sequences"]:
        raise invalid_config(
            f"spec.evaluation.split {spec.split}: no records are held out for it",
            hint=f"set split.{split} on a dataset, add one with role {spec.split}, or set evaluation.enabled: false",
        )
    asked = spec.model_dump(exclude={"enabled", "split", "samples"}, exclude_defaults=True) | {
        "baseline": spec.baseline
    }
    subject = {
        "model": result.manifest["files"],
        "data": data.manifest["key"],
        "split": split,
        **{name: value for name, value in asked.items() if value not in (None, False)},
    }
    present = read_committed(context.evaluation_dir)
    if present is not None and present.manifest.get("subject") == subject:
        say("this model has been measured on this data: nothing to do")
        known = json.loads((context.evaluation_dir / "metrics.json").read_text())
        reporter.report(evaluation=known, percentage=100.0, milestone=True)
        return

    started = time.monotonic()
    with quick_imports():
        measure = load()
    reporter.report(phase="evaluate", percentage=0.0, timings={"imports": round(time.monotonic() - started, 2)})
    context = fitted(context, recall(context.work_dir, context.training))
    device = find_device(context.training.precision, gpus_asked=gpus_asked(context.run.spec, context.step))
    batch = EvaluationBatch(
        context.training.per_device_eval_batch_size,
        may_shrink=may_reduce(context),
        on_smaller=lambda size: say(f"the device ran out of memory: evaluation in batches of {size}"),
    )
    found = measure(Examination(context, reporter, data, split, held_out["records"], device, batch))
    if found is None:
        return

    result = in_json(found.result)

    def write(folder: Path) -> None:
        details = in_json({**result, **found.details})
        (folder / "metrics.json").write_text(json.dumps(details, indent=1, allow_nan=False))
        if found.records:
            (folder / "records.jsonl").write_text(found.records)
        for name, text in found.more.items():
            (folder / name).write_text(text)
        (folder / "samples.json").write_text(json.dumps(found.samples, indent=1, ensure_ascii=False))

    commit_folder(context.evaluation_dir, write, subject=subject)
    reporter.report(evaluation=result, metrics=found.metrics, percentage=100.0, milestone=True)


def in_json(value: Any) -> Any:
    """With null in place of numbers that JSON has no word for: the perplexity of a loss of 10,000 is beyond any float."""
    if isinstance(value, Mapping):
        return {key: in_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [in_json(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
