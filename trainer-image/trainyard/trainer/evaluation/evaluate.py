"""What the evaluate step measures of a language model, on records that it has never seen.

With `evaluation.baseline` the model as it was before training is measured on the same records, so that the numbers can be
compared with something.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from transformers.utils import logging as transformers_logging

from trainyard.trainer.data.store import Sequences
from trainyard.trainer.data.tokenizer import load_tokenizer
from trainyard.trainer.evaluation.loss import measure
from trainyard.trainer.frame.evaluate import Examination, Findings
from trainyard.trainer.log import say, warn
from trainyard.trainer.methods import samples
from trainyard.trainer.methods.recipes import Material, evaluation_objective
from trainyard.trainer.models.load import load_for_evaluation, load_untrained

Progress = Callable[[int, int], None]
Measure = Callable[..., dict[str, Any]]
"""Metrics of a model; takes batch_size and progress."""


def examine(examination: Examination) -> Findings:
    """Measure the result, before that what it began as if asked to, and let it say something."""
    started = time.monotonic()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*generation flags are not valid.*")
    context, split = examination.context, examination.split
    tokenizer = load_tokenizer(context.data_dir / "tokenizer")
    material = Material(context, examination.data, examination.device, tokenizer, split)
    sequences = material.sequences(split)
    own = material.method.has_own_evaluation
    of_model = evaluation_objective(material).evaluate if own else partial(loss_of, material, sequences)

    before: dict[str, Any] | None = None
    if context.run.spec.evaluation.baseline:
        # One model at a time on the device.
        untrained = load_untrained(context, examination.device, tokenizer, vocab_size=material.vocab_size)
        before = measured(examination, partial(of_model, untrained), begin=0.0, end=45.0)
        del untrained
    model = load_for_evaluation(context, examination.device)
    examination.reporter.report(timings={"load": round(time.monotonic() - started, 2)})
    outcome = measured(examination, partial(of_model, model), begin=45.0 if before else 0.0, end=90.0)
    if before is not None:
        say(f"{split}: before training {_told(before)}")
    say(f"{split}: {_told(outcome)} over {examination.records} records")
    return Findings(
        {
            "split": split,
            "records": examination.records,
            "metrics": outcome,
            **({"baseline": before} if before else {}),
        },
        [dataclasses.asdict(sample) for sample in samples_of(material, model, sequences)],
        {f"eval_{name}" if name == "loss" else name: value for name, value in outcome.items() if name != "tokens"},
    )


def measured(examination: Examination, measure: Measure, *, begin: float, end: float) -> dict[str, Any]:
    """Metrics, in batches that fit; the step's progress goes from `begin` to `end` per cent meanwhile."""

    def progress(done: int, total: int) -> None:
        examination.reporter.report(percentage=round(begin + (end - begin) * done / total, 1))

    return examination.batch.fitting(lambda size: measure(batch_size=size, progress=progress))


def loss_of(
    material: Material, sequences: Sequences, model: Any, *, batch_size: int, progress: Progress
) -> dict[str, Any]:
    """Loss, perplexity and what they are over."""
    outcome = measure(
        model,
        sequences,
        batch_size=batch_size,
        padding_id=material.tokenizer.pad_token_id,
        device=material.device.kind,
        dtype=material.device.compute_dtype,
        progress=progress,
    )
    return {"loss": outcome.loss, "perplexity": outcome.perplexity, "tokens": outcome.tokens}


def _told(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:,}" if name == "tokens" else f"{name} {value:.4f}" for name, value in values.items()
    )


def samples_of(material: Material, model: Any, sequences: Sequences) -> list[samples.Sample]:
    """Samples are an extra: an architecture that cannot generate step by step still has its metrics."""
    seed, count = material.context.training.seed, material.context.run.spec.evaluation.samples
    try:
        generated = samples.generate(
            model, material.tokenizer, sequences, device=material.device.kind, seed=seed, count=count
        )
    except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
        warn(f"no samples: {str(error).splitlines()[0]}")
        return []
    samples.show(generated)
    return generated
