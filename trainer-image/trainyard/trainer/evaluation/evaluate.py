"""What the evaluate step measures of a language model, on records that it has never seen.

    before training  ->  the champion, or its kept scores  ->  the result  ->  verdicts

With `evaluation.baseline` the model as it was before training is measured on the same records, so that the numbers can be
compared with something. With `evaluation.compareWith` so is the champion, and gates say whether the result is better. One model
at a time is on the device. Methods with metrics of their own (those that learn from preferences and rewards) have these
instead of scores of each record.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from trainyard.api.run.evaluation import ANSWERED, FREE, Evaluation, canonical, is_of_task
from trainyard.trainer.data.store import Sequences
from trainyard.trainer.data.tokenizer import load_tokenizer
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.evaluation.champion import Champion, digest_of, find_champion, kept_or
from trainyard.trainer.evaluation.gates import Columns, NoChampion, judge, overall
from trainyard.trainer.evaluation.harness.ask import Asked, ask
from trainyard.trainer.evaluation.harness.columns import check_same_records, columns_of
from trainyard.trainer.evaluation.harness.tasks import folder
from trainyard.trainer.evaluation.measure import Records
from trainyard.trainer.evaluation.scores import Scores
from trainyard.trainer.frame.evaluate import Examination, Findings
from trainyard.trainer.log import say, warn
from trainyard.trainer.methods import samples
from trainyard.trainer.methods.recipes import Material, evaluation_objective
from trainyard.trainer.models.handover import save_model
from trainyard.trainer.models.load import load_for_evaluation, load_other, load_untrained
from trainyard.trainer.volume.commit import TEMPORARY

HARNESS_RECORDS = "harness.jsonl"
Measure = Callable[..., dict[str, Any]]
"""Metrics of a model; takes batch_size and progress."""


def examine(examination: Examination) -> Findings:
    """Measure the result, before that what it is compared with, and let it say something."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*generation flags are not valid.*")
    context = examination.context
    tokenizer = load_tokenizer(context.data_dir / "tokenizer")
    material = Material(context, examination.data, examination.device, tokenizer, examination.split)
    sequences = material.sequences(examination.split)
    if material.method.has_own_evaluation:
        return with_tasks(by_objective(examination, material, sequences), asked_tasks(material, examination, None))
    return by_records(Records(examination, material, sequences))


@dataclasses.dataclass(frozen=True)
class Tasks:
    """What the tasks of spec.evaluation.harness say of each model that they were asked of."""

    result: Asked
    before: Asked | None
    champion: Asked | None


def asked_tasks(material: Material, examination: Examination, champion: Champion | NoChampion | None) -> Tasks | None:
    """Ask them of the result, and of what else is to be compared with it. No model may be on the device."""
    context, device, spec = examination.context, examination.device, examination.context.run.spec.evaluation
    if spec.harness is None:
        return None
    examination.reporter.report(phase="harness", percentage=90.0)
    dtype = str(device.compute_dtype).removeprefix("torch.")
    asked = partial(ask, context, spec.harness, device=device.kind, dtype=dtype, batch=examination.batch.size)
    result = asked(context.model_dir)
    other = champion if isinstance(champion, Champion) and any(map(is_of_task, gained(spec))) else None
    told_before = spec.baseline and spec.baseline_answers
    before = theirs = None
    if told_before or (other is not None and other.folder is None):
        with tempfile.TemporaryDirectory(dir=context.run_dir, prefix=TEMPORARY) as place:
            save_model(untrained(material), Path(place))
            material.tokenizer.save_pretrained(place)
            before = asked(Path(place))
    if other is not None:
        theirs = before if other.folder is None else _of_champion(examination, other.folder, asked)
        assert theirs is not None
        check_same_records(result, theirs, told=other.told)
    return Tasks(result, before if told_before else None, theirs)


def _of_champion(examination: Examination, place: Path, asked: Callable[[Path], Asked]) -> Asked:
    """Kept from an earlier run, or asked now."""
    context, spec = examination.context, examination.context.run.spec.evaluation.harness
    assert spec is not None

    def measure() -> Scores:
        found = asked(place)
        return Scores([{"metrics": dict(found.metrics)}, *found.rows])

    basis = {
        "model": digest_of(place),
        "harness": [spec.tasks, spec.limit, folder(context, spec).digest()],
        "device": [examination.device.kind, examination.device.precision],
    }
    first, *rows = kept_or(context, basis, measure).rows
    return Asked(first["metrics"], rows)


def with_tasks(found: Findings, tasks: Tasks | None) -> Findings:
    """What was found, and what the tasks say."""
    if tasks is None:
        return found
    result = {**found.result, "metrics": {**found.result["metrics"], **tasks.result.metrics}}
    if tasks.before is not None:
        result["baseline"] = {**result.get("baseline", {}), **tasks.before.metrics}
    return dataclasses.replace(
        found,
        result=result,
        metrics={**found.metrics, **tasks.result.metrics},
        more={HARNESS_RECORDS: Scores(tasks.result.rows).jsonl()},
    )


def by_records(records: Records) -> Findings:
    """Scores of each record; metrics, groups and verdicts are made of them."""
    examination, material = records.examination, records.material
    spec = examination.context.run.spec.evaluation
    metrics, split = spec.measured(), examination.split
    champion = find_champion(examination.context)
    compared = tuple(m for m in metrics if m in FREE or m in gained(spec))
    is_base = isinstance(champion, Champion) and champion.folder is None
    wanted = compared if is_base else tuple(m for m in metrics if m in FREE) if spec.baseline else ()
    if spec.baseline and spec.baseline_answers:
        wanted = metrics
    shares = _shares(untrained=bool(wanted), champion=isinstance(champion, Champion) and not is_base)

    before: Scores | None = None
    if wanted:
        before = records.measure(untrained(material), wanted, _told(examination, *shares["untrained"]))
        say(f"{split}: before training {_shown(before.values(wanted))}")
    theirs: Columns | NoChampion | None = None
    kept = before
    if isinstance(champion, NoChampion):
        theirs = champion
        say(f"no champion yet: {champion.told}")
    elif champion is not None:
        if champion.folder is not None:
            kept = of_champion(records, champion, compared, _told(examination, *shares["champion"]))
        assert kept is not None
        theirs = kept.columns(metrics)
        say(f"{split}: {champion.told} {_shown(kept.values(metrics))}")

    started = time.monotonic()
    model = load_for_evaluation(examination.context, examination.device)
    examination.reporter.report(timings={"load": round(time.monotonic() - started, 2)})
    scores = records.measure(model, metrics, _told(examination, *shares["result"]))
    outcome = scores.values(metrics)
    say(f"{split}: {_shown(outcome)} over {examination.records} records")
    if kept is not None and champion is not None and not isinstance(champion, NoChampion):
        scores.check_same_records(kept, told=champion.told)
    columns = scores.columns(metrics)
    details: dict[str, Any] = {"groups": scores.groups(metrics)}
    said = [dataclasses.asdict(sample) for sample in samples_of(material, model, records.sequences)]
    del model
    if kept is not None and isinstance(theirs, Mapping):
        details["champion"] = {"metrics": kept.values(metrics), "groups": kept.groups(metrics)}
    tasks = asked_tasks(material, examination, champion)
    if tasks is not None:
        wanted_of_tasks = [gate.metric for gate in spec.gates or () if is_of_task(gate.metric)]
        columns |= columns_of(tasks.result, wanted_of_tasks)
        if tasks.champion is not None and isinstance(theirs, Mapping):
            theirs = {**theirs, **columns_of(tasks.champion, wanted_of_tasks)}
            details["champion"]["metrics"] |= tasks.champion.metrics
    verdicts = overall([judge(gate, columns, theirs) for gate in spec.gates or ()])
    if verdicts:
        say(f"{verdicts['verdict']}: {verdicts['message']}")
    tokens = {"tokens": sum(row["tokens"] for row in scores.rows)} if any(m in FREE for m in metrics) else {}
    result: dict[str, Any] = {
        "split": split,
        "records": examination.records,
        "metrics": {**outcome, **tokens},
        **verdicts,
    }
    if before is not None and spec.baseline:
        result["baseline"] = {**before.values(wanted), **tokens}
    if champion is not None:
        result["comparedWith"] = champion.told
    found = Findings(
        result,
        said,
        {f"eval_{name}" if name == "loss" else name: value for name, value in outcome.items()},
        with_champion(scores, kept if isinstance(theirs, Mapping) else None).jsonl(),
        details,
    )
    return with_tasks(found, tasks)


def gained(spec: Evaluation) -> set[str]:
    """Metrics that a gain is asked of."""
    return {canonical(gate.metric) for gate in spec.gates or () if gate.minimum_gain is not None}


def untrained(material: Material) -> Any:
    """The model as it was before training."""
    return load_untrained(material.context, material.device, material.tokenizer, vocab_size=material.vocab_size)


def of_champion(
    records: Records, champion: Champion, metrics: Sequence[str], progress: Callable[[float], None]
) -> Scores:
    """Kept from an earlier run, or measured now.

    Raises:
        UserError: it is no model, or reads other tokens than the result.
    """
    examination, material, folder = records.examination, records.material, champion.folder
    assert folder is not None
    spec = examination.context.run.spec.evaluation
    check_tokenizer(material.tokenizer, folder, told=champion.told)

    def measure() -> Scores:
        model = load_other(folder, material.device, told=champion.told)
        return records.measure(model, metrics, progress)

    if "latencyP50Seconds" in metrics:
        return measure()
    answers = [spec.max_new_tokens, spec.max_answers] if any(name in ANSWERED for name in metrics) else None
    basis = {
        "model": digest_of(folder),
        "records": [row["digest"] for row in records.known],
        "data": examination.data.manifest["key"],
        "metrics": metrics,
        "answers": answers,
        "device": [material.device.kind, material.device.precision],
    }
    return kept_or(examination.context, basis, measure)


def check_tokenizer(ours: Any, folder: Any, *, told: str) -> None:
    """Raises UserError if the champion would read the prepared tokens as other words."""
    try:
        theirs = load_tokenizer(folder)
    except Exception as error:  # the library raises bare exceptions for what is wrong in a file
        raise invalid_config(
            f"{told} has no tokenizer that can be read", hint="keep tokenizer.json beside it"
        ) from error
    if theirs.get_vocab() != ours.get_vocab():
        raise invalid_config(
            f"{told} has another tokenizer than the result: the same record is not the same to both",
            hint="compare models of one family, for example the model before training (compareWith.baseModel)",
        )


def with_champion(scores: Scores, champion: Scores | None) -> Scores:
    """Each row with what the champion got for the same record."""
    if champion is None:
        return scores
    known = {"record", "digest", "source", "type", "tokens", "reference"}
    theirs = [{k: v for k, v in row.items() if k not in known} for row in champion.rows]
    return Scores([{**mine, "champion": other} for mine, other in zip(scores.rows, theirs, strict=True)])


def by_objective(examination: Examination, material: Material, sequences: Sequences) -> Findings:
    """The method's own metrics."""
    started = time.monotonic()
    of_model, split = evaluation_objective(material).evaluate, examination.split
    before: dict[str, Any] | None = None
    if examination.context.run.spec.evaluation.baseline:
        before = measured(examination, partial(of_model, untrained(material)), begin=0.0, end=45.0)
    model = load_for_evaluation(examination.context, examination.device)
    examination.reporter.report(timings={"load": round(time.monotonic() - started, 2)})
    outcome = measured(examination, partial(of_model, model), begin=45.0 if before else 0.0, end=90.0)
    if before is not None:
        say(f"{split}: before training {_shown(before)}")
    say(f"{split}: {_shown(outcome)} over {examination.records} records")
    result = {"split": split, "records": examination.records, "metrics": outcome}
    return Findings(
        {**result, "baseline": before} if before else result,
        [dataclasses.asdict(sample) for sample in samples_of(material, model, sequences)],
        {f"eval_{name}" if name == "loss" else name: value for name, value in outcome.items()},
    )


def measured(examination: Examination, measure: Measure, *, begin: float, end: float) -> dict[str, Any]:
    """Metrics, in batches that fit; the step's progress goes from `begin` to `end` per cent meanwhile."""
    told = _told(examination, begin, end)
    return examination.batch.fitting(lambda size: measure(batch_size=size, progress=lambda d, t: told(d / t)))


def _told(examination: Examination, begin: float, end: float) -> Callable[[float], None]:
    def progress(done: float) -> None:
        examination.reporter.report(percentage=round(begin + (end - begin) * done, 1))

    return progress


def _shares(*, untrained: bool, champion: bool) -> dict[str, tuple[float, float]]:
    """Which part of the step's 90 per cent belongs to which model."""
    names = [name for name, there in (("untrained", untrained), ("champion", champion), ("result", True)) if there]
    return {name: (90.0 * n / len(names), 90.0 * (n + 1) / len(names)) for n, name in enumerate(names)}


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def samples_of(material: Material, model: Any, sequences: Sequences) -> list[samples.Sample]:
    """Samples are an extra: an architecture that cannot generate step by step still has its metrics."""
    if material.method.makes_scores:
        return []
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
