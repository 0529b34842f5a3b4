"""The evaluate step: the trained model on the records that it has never seen.

Leaves `evaluation/metrics.json` and `evaluation/samples.json`, committed together, and the metrics in the final record. With
`evaluation.baseline` the model as it was before training is measured on the same records, so that the numbers can be
compared with something.
"""

from __future__ import annotations

import dataclasses
import json
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from trainyard.api.run.methods import METHODS
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.prepare import open_prepared, specification_key
from trainyard.trainer.errors import invalid_config, is_device_out_of_memory, storage
from trainyard.trainer.log import say, warn
from trainyard.trainer.machine.imports import quick_imports
from trainyard.trainer.methods.out_of_memory import recall
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import commit_folder, read_committed
from trainyard.trainer.volume.result import find_result


def evaluate(context: RunContext, reporter: Reporter) -> None:
    """Measure, generate, commit. Does nothing if this very model has been measured."""
    reporter.report(phase="load")
    data = open_prepared(context, specification_key(context), reporter)
    result = find_result(context)
    if result is None:
        raise storage(f"there is no trained model in {context.model_dir}", hint="run the train step first")
    split = context.run.spec.evaluation.split.lower()
    held_out = data.manifest["splits"][split]
    if not held_out["sequences"]:
        raise invalid_config(
            f"spec.evaluation.split {split.capitalize()}: no records are held out for it",
            hint=f"set split.{split} on a dataset, add one with role {split.capitalize()}, or set evaluation.enabled: false",
        )
    baseline = context.run.spec.evaluation.baseline
    subject = {
        "model": result.manifest["files"],
        "data": data.manifest["key"],
        "split": split,
        **({"baseline": True} if baseline else {}),
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

    started = time.monotonic()
    with quick_imports():
        from transformers.utils import logging as transformers_logging

        from trainyard.trainer.data.store import Sequences
        from trainyard.trainer.data.tokenizer import load_tokenizer
        from trainyard.trainer.evaluation.loss import measure
        from trainyard.trainer.machine.device import find_device, free_memory
        from trainyard.trainer.methods import samples
        from trainyard.trainer.methods.recipes import Material, evaluation_objective
        from trainyard.trainer.models.load import load_for_evaluation, load_untrained

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*generation flags are not valid.*")
    device = find_device(context.training.precision)
    tokenizer = load_tokenizer(context.data_dir / "tokenizer")
    reporter.report(phase="evaluate", percentage=0.0)
    vocab_size = int(data.manifest["vocabSize"])
    sequences = Sequences.open(context.data_dir / split, vocab_size=vocab_size)
    shares = (45.0, 90.0) if baseline else (0.0, 90.0)

    own = METHODS[context.training.method].has_own_evaluation
    objective = evaluation_objective(Material(context, data, device, tokenizer, split)) if own else None
    batch_size = recall(context.work_dir, context.training).settings.per_device_eval_batch_size
    reduces = context.run.spec.on_out_of_memory == "ReduceBatch"

    def measured(subject: Any, start: float, end: float) -> dict[str, Any]:
        """In ever smaller batches until it fits: the result does not depend on them."""
        nonlocal batch_size
        while True:
            try:
                return measured_once(subject, start, end)
            except RuntimeError as error:
                if not reduces or batch_size == 1 or not is_device_out_of_memory(error):
                    raise
                traceback.clear_frames(error.__traceback__)  # they hold the activations
            free_memory()
            batch_size //= 2
            say(f"the device ran out of memory: evaluation in batches of {batch_size}")

    def measured_once(subject: Any, start: float, end: float) -> dict[str, Any]:
        def progress(done: int, total: int) -> None:
            reporter.report(percentage=round(start + (end - start) * done / total, 1))

        if objective is not None:
            return objective.evaluate(subject, batch_size=batch_size, progress=progress)
        outcome = measure(
            subject,
            sequences,
            batch_size=batch_size,
            padding_id=tokenizer.pad_token_id,
            device=device.kind,
            dtype=device.compute_dtype,
            progress=progress,
        )
        return {"loss": outcome.loss, "perplexity": outcome.perplexity, "tokens": outcome.tokens}

    before: dict[str, Any] | None = None
    if baseline:
        # One model at a time on the device.
        untrained = load_untrained(context, device, tokenizer, vocab_size=vocab_size)
        before = measured(untrained, 0.0, shares[0])
        del untrained
    model = load_for_evaluation(context, device)
    reporter.report(timings={"load": round(time.monotonic() - started, 2)})
    outcome = measured(model, *shares)
    metrics: dict[str, Any] = {
        "split": split,
        "records": held_out["records"],
        "metrics": outcome,
        **({"baseline": before} if before else {}),
    }
    if before is not None:
        say(f"{split}: before training {_told(before)}")
    say(f"{split}: {_told(outcome)} over {held_out['records']} records")
    generated = _samples(samples, context, model, tokenizer, sequences, device=device.kind)

    def write(folder: Path) -> None:
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
        texts = [dataclasses.asdict(sample) for sample in generated]
        (folder / "samples.json").write_text(json.dumps(texts, indent=1, ensure_ascii=False))

    commit_folder(context.evaluation_dir, write, subject=subject)
    reporter.report(
        evaluation=metrics,
        metrics={
            f"eval_{name}" if name == "loss" else name: value for name, value in outcome.items() if name != "tokens"
        },
        percentage=100.0,
        milestone=True,
    )


def _told(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:,}" if name == "tokens" else f"{name} {value:.4f}" for name, value in values.items()
    )


def _samples(
    samples: Any, context: RunContext, model: Any, tokenizer: Any, sequences: Any, *, device: str
) -> list[Any]:
    """Samples are an extra: an architecture that cannot generate step by step still has its metrics."""
    try:
        seed, count = context.training.seed, context.run.spec.evaluation.samples
        generated: list[Any] = samples.generate(model, tokenizer, sequences, device=device, seed=seed, count=count)
    except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
        warn(f"no samples: {str(error).splitlines()[0]}")
        return []
    samples.show(generated)
    return generated
