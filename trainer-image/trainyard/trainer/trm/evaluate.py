"""The evaluate step of a Tiny Recursive Model: exact answers, honesty, and what simpler means reach.

Leaves `evaluation/metrics.json` and `evaluation/samples.json`. Whether the result is good enough is part of the result: a
model that does not beat the nearest neighbour by `minimumGain` is measured, kept, and reported as not passed.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from trainyard.trainer.context import RunContext
from trainyard.trainer.data.prepare import open_prepared
from trainyard.trainer.errors import invalid_config, storage
from trainyard.trainer.log import say
from trainyard.trainer.machine.device import find_device, keep_freed_memory
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.signals import STOP
from trainyard.trainer.trm.baselines import (
    majority,
    nearest_neighbour,
    trained_share,
    with_shuffled_labels,
    without_recursion,
)
from trainyard.trainer.trm.folder import Split, read_split
from trainyard.trainer.trm.honesty import calibration_error, discrimination, risk_at_coverage
from trainyard.trainer.trm.inference import TRMModel
from trainyard.trainer.trm.measure import Answers, Stopped, measure
from trainyard.trainer.trm.prepare import specification_key
from trainyard.trainer.trm.task import TEXT, masked_id
from trainyard.trainer.trm.train import make_fit
from trainyard.trainer.volume.commit import Committed, commit_folder, read_committed
from trainyard.trainer.volume.result import find_result

SAMPLES = 10
SIMPLE = ("Majority", "NearestNeighbor")


def evaluate(context: RunContext, reporter: Reporter) -> None:
    """Measure, compare, commit. Does nothing if this very model has been measured.

    Raises:
        UserError: there is no model, or nothing is held out.
    """
    reporter.report(phase="load")
    data = open_prepared(context, specification_key(context), reporter)
    result = find_result(context)
    if result is None:
        raise storage(f"there is no trained model in {context.model_dir}", hint="run the train step first")
    spec = context.run.spec.evaluation
    name = spec.split.lower()
    if not data.manifest["splits"][name]["records"]:
        raise invalid_config(
            f"spec.evaluation.split {spec.split}: nothing is held out for it",
            hint=f"set split.{name} on a dataset, add one with role {spec.split}, or set evaluation.enabled: false",
        )
    compared = list(spec.baselines if spec.baselines is not None else SIMPLE)
    subject = {
        "model": result.manifest["files"],
        "data": data.manifest["key"],
        "split": name,
        "baselines": compared,
        "minimumGain": spec.minimum_gain,
    }
    present = read_committed(context.evaluation_dir)
    if present is not None and present.manifest.get("subject") == subject:
        say("this model has been measured on this data: nothing to do")
        reporter.report(
            evaluation=json.loads((context.evaluation_dir / "metrics.json").read_text()),
            percentage=100.0,
            milestone=True,
        )
        return
    with STOP.deferred():  # leaving it after a stop ends the process: run me again
        try:
            metrics, samples = examine(context, reporter, data, name=name, compared=compared)
        except Stopped:
            return

    def write(folder: Path) -> None:
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
        (folder / "samples.json").write_text(json.dumps(samples, indent=1, ensure_ascii=False))

    commit_folder(context.evaluation_dir, write, subject=subject)
    reporter.report(
        evaluation=metrics, metrics={"eval_exact": metrics["metrics"]["exact"]}, percentage=100.0, milestone=True
    )


def examine(
    context: RunContext, reporter: Reporter, data: Committed, *, name: str, compared: list[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """All numbers, and some answers in full."""
    started = time.monotonic()
    device = find_device(context.training.precision)
    if device.kind == "cpu":
        keep_freed_memory()
    task = data.manifest["task"]
    train, held_out = (read_split(context.data_dir / s, name=s) for s in ("train", name))
    model = TRMModel.load_from_checkpoint(context.model_dir, device=device.kind)
    reporter.report(timings={"load": round(time.monotonic() - started, 2)})
    reporter.report(phase="evaluate", percentage=0.0)
    batch = context.training.per_device_eval_batch_size
    answers = measure(model.network, held_out, device=torch.device(device.kind), batch=batch, masked=masked_id(task))
    reporter.report(percentage=30.0)
    risks = risk_at_coverage(answers.confidence, answers.solved)
    metrics: dict[str, Any] = {
        "exact": answers.exact,
        "token_accuracy": float(answers.right.mean()),
        "calibration_error": calibration_error(answers.confidence, answers.solved),
        "error_at_half_coverage": risks["50%"],
    }
    if (auroc := discrimination(answers.confidence, answers.solved)) is not None:
        metrics["confidence_auroc"] = auroc
    say(
        f"{name}: {answers.exact:.2%} of {len(held_out)} exactly right, {metrics['token_accuracy']:.2%} of tokens; of the "
        f"surer half {1 - risks['50%']:.2%} are right"
    )
    baselines = compare(context, data, train, held_out, compared, reporter=reporter)
    metrics |= {f"baseline_{key}": value for key, value in baselines.items()}
    result: dict[str, Any] = {
        "split": name,
        "records": len(held_out),
        "metrics": metrics,
        "risk": risks,
        "baselines": baselines,
    }
    result |= gate(answers.exact, baselines, context.run.spec.evaluation.minimum_gain)
    return result, show(model, held_out, answers)


def compare(
    context: RunContext, data: Committed, train: Split, held_out: Split, wanted: list[str], *, reporter: Reporter
) -> dict[str, float]:
    """Exact share of each baseline."""
    device = find_device(context.training.precision)
    batch = context.training.per_device_eval_batch_size
    texts = data.manifest["task"]["kind"] == TEXT
    found = {}
    for number, name in enumerate(wanted):
        match name:
            case "Majority":
                share = majority(train, held_out)
            case "NearestNeighbor":
                share = nearest_neighbour(train, held_out, texts=texts)
            case "NoRecursion":
                share = trained_share(without_recursion(make_fit(context, data, device)), held_out, batch=batch)
            case _:
                share = trained_share(
                    with_shuffled_labels(make_fit(context, data, device), train), held_out, batch=batch
                )
        found[name] = share
        say(f"baseline {name}: {share:.2%} exactly right")
        reporter.report(percentage=30.0 + 65.0 * (number + 1) / len(wanted))
    return found


def gate(exact: float, baselines: dict[str, float], minimum_gain: float | None) -> dict[str, Any]:
    """Whether the result is good enough, in words too. Without a minimum nothing is said."""
    if minimum_gain is None:
        return {}
    simple = {name: share for name, share in baselines.items() if name in SIMPLE}
    if not simple:
        raise invalid_config(
            "spec.evaluation.minimumGain needs something to be better than",
            hint="put Majority or NearestNeighbor into spec.evaluation.baselines, or leave baselines out",
        )
    best = max(simple, key=lambda name: simple[name])
    gain = exact - simple[best]
    passed = gain >= minimum_gain
    verb = "beats" if passed else "does not beat"
    message = (
        f"{exact:.1%} exact {verb} {best} ({simple[best]:.1%}) by {minimum_gain:.1%}: the difference is {gain:+.1%}"
    )
    say(f"{'passed' if passed else 'NOT PASSED'}: {message}")
    return {"passed": passed, "message": message}


def show(model: TRMModel, split: Split, answers: Answers) -> list[dict[str, Any]]:
    """Some held-out examples as ids, with the answer and what the model thought of it."""
    return [
        {
            "input": [int(i) for i in split.inputs[n]],
            "label": [int(i) for i in split.labels[n]],
            "answer": [int(i) for i in answers.ids[n]],
            "solved": bool(answers.solved[n]),
            "haltingLogit": float(answers.confidence[n]),
        }
        for n in range(min(SAMPLES, len(split)))
    ]
