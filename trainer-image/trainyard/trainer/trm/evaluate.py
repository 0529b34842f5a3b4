"""What the evaluate step measures of a Tiny Recursive Model: exact answers, honesty, and what simpler means reach.

Whether the result is good enough is part of the result: gates judge it (see `evaluation/gates.py`), and a gain is one over the
better of the two baselines that cost nothing, on the same examples.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainyard.api.run.evaluation import Gate
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.evaluation.gates import Column, judge, overall
from trainyard.trainer.frame.evaluate import Examination, Findings
from trainyard.trainer.log import say
from trainyard.trainer.machine.device import keep_freed_memory
from trainyard.trainer.signals import STOP
from trainyard.trainer.trm.baselines import (
    majority,
    nearest_neighbour,
    trained,
    with_shuffled_labels,
    without_recursion,
)
from trainyard.trainer.trm.fit import Fit
from trainyard.trainer.trm.folder import Split, read_split
from trainyard.trainer.trm.honesty import calibration_error, discrimination, risk_at_coverage
from trainyard.trainer.trm.inference import TRMModel
from trainyard.trainer.trm.measure import Answers, Stopped, measure
from trainyard.trainer.trm.model import Network
from trainyard.trainer.trm.task import TEXT, masked_id
from trainyard.trainer.trm.train import make_fit

SAMPLES = 10
SIMPLE = ("Majority", "NearestNeighbor")


def examine(examination: Examination) -> Findings | None:
    """All numbers, and some answers in full."""
    with STOP.deferred():  # leaving it after a stop ends the process: run me again
        try:
            return _examine(examination)
        except Stopped:
            return None


def _examine(examination: Examination) -> Findings:
    started = time.monotonic()
    context, name, reporter = examination.context, examination.split, examination.reporter
    if examination.device.kind == "cpu":
        keep_freed_memory()
    train, held_out = (read_split(context.data_dir / s, name=s) for s in ("train", name))
    model = TRMModel.load_from_checkpoint(context.model_dir, device=examination.device.kind)
    reporter.report(timings={"load": round(time.monotonic() - started, 2)})
    answers = answers_of(model.network, held_out, examination)
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
    solved = compare(examination, train, held_out)
    baselines = {key: float(right.mean()) for key, right in solved.items()}
    metrics |= {f"baseline_{key}": value for key, value in baselines.items()}
    result: dict[str, Any] = {
        "split": name,
        "records": len(held_out),
        "metrics": metrics,
        "risk": risks,
        "baselines": baselines,
    }
    result |= judged(context.run.spec.evaluation.all_gates(), answers, solved)
    rows = (
        {"record": n, "exactMatch": int(right), "tokenAccuracy": float(answers.right[n])}
        for n, right in enumerate(answers.solved)
    )
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    return Findings(result, show(model, held_out, answers), {"eval_exact": answers.exact}, lines)


def answers_of(network: Network, held_out: Split, examination: Examination) -> Answers:
    """To all held-out examples, in batches that fit."""
    device, masked = torch.device(examination.device.kind), masked_id(examination.data.manifest["task"])
    return examination.batch.fitting(lambda size: measure(network, held_out, device=device, batch=size, masked=masked))


def compare(examination: Examination, train: Split, held_out: Split) -> dict[str, NDArray[np.bool_]]:
    """Which examples each baseline gets right."""
    asked = examination.context.run.spec.evaluation.baselines
    wanted = SIMPLE if asked is None else asked
    texts = examination.data.manifest["task"]["kind"] == TEXT
    found: dict[str, NDArray[np.bool_]] = {}
    for number, name in enumerate(wanted):
        match name:
            case "Majority":
                right = majority(train, held_out)
            case "NearestNeighbor":
                right = nearest_neighbour(train, held_out, texts=texts)
            case "NoRecursion":
                right = answers_of(trained(without_recursion(new_fit(examination))), held_out, examination).solved
            case _:
                right = answers_of(
                    trained(with_shuffled_labels(new_fit(examination), train)), held_out, examination
                ).solved
        found[name] = right
        say(f"baseline {name}: {right.mean():.2%} exactly right")
        examination.reporter.report(percentage=30.0 + 65.0 * (number + 1) / len(wanted))
    return found


def new_fit(examination: Examination) -> Fit:
    """The run's own training, at its beginning."""
    return make_fit(examination.context, examination.data, examination.device)


def judged(gates: Sequence[Gate], answers: Answers, baselines: Mapping[str, NDArray[np.bool_]]) -> dict[str, Any]:
    """The verdicts of the gates. Without gates nothing is said."""
    if not gates:
        return {}
    each = np.ones(len(answers.solved))
    columns = {"exactMatch": Column(answers.solved.astype(float), each), "tokenAccuracy": Column(answers.right, each)}
    simple = {name: right for name, right in baselines.items() if name in SIMPLE}
    if not simple and any(gate.minimum_gain is not None for gate in gates):
        raise invalid_config(
            "spec.evaluation.gates with minimumGain (or spec.evaluation.minimumGain) need something to be better than",
            hint="put Majority or NearestNeighbor into spec.evaluation.baselines, or leave baselines out",
        )
    best = max(simple, key=lambda name: simple[name].mean(), default="")
    champion = {"exactMatch": Column(simple[best].astype(float), each)} if best else None
    found = overall([judge(gate, columns, champion, against=best) for gate in gates])
    say(f"{found['verdict']}: {found['message']}")
    return found


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
