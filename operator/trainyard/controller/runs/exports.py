"""What the books say of exports: which are skipped and why, what each has left, how the run ends for it. Pure.

An export is a step of its own that the run can do without: it costs the run none of its attempts, and the trained model is on
the volume whatever becomes of it. What is skipped follows from the status alone, so every look says the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic.alias_generators import to_camel

from trainyard.api.progress import ExportRecord
from trainyard.api.run.exports import Export
from trainyard.api.run.status import (
    EvaluationStatus,
    ExportStatus,
    ModelStatus,
    PromotionStatus,
    StepStatus,
    TrainingRunStatus,
)
from trainyard.api.run.versioning import values_of
from trainyard.api.steps import STEP_PROMOTE
from trainyard.api.texts import one_line
from trainyard.controller.manifests.metadata import PlannedStep, RunRef
from trainyard.controller.runs.ledger import Ledger, last_attempt
from trainyard.controller.runs.observed import Observed
from trainyard.controller.runs.told import limit_of

GATES_PASSED = "GatesPassed"
MODEL_DIGEST = "modelDigest"
"""In `status.provenance`: the digest over the files of the result, as the training has told it."""


def settle(seen: Observed, ledger: Ledger, status: TrainingRunStatus) -> tuple[Ledger, TrainingRunStatus]:
    """The books with exports skipped that will not begin, and the status with what exports have left."""
    run = seen.run
    if not run.exports:
        return ledger, status
    skipped: dict[str, str] = {}
    for planned in ledger.planned:
        step = _step(ledger.steps, planned.name)
        if (
            not (planned.name in run.exports or planned.name == STEP_PROMOTE)
            or step.attempts
            or step.state not in ("Waiting", "Skipped")
        ):
            continue
        if why := _why_skipped(run, planned, ledger, skipped, status):
            skipped[planned.name] = why
    steps = tuple(s.model_copy(update={"state": "Skipped"}) if s.name in skipped else s for s in ledger.steps)
    ledger = replace(ledger, steps=steps)
    told = {step: record.export for step, record in ledger.finals if record.export is not None}
    return ledger, described(run, status.model_copy(update={"steps": list(steps)}), told=told, skipped=skipped)


def described(
    run: RunRef,
    status: TrainingRunStatus,
    *,
    told: Mapping[str, ExportRecord] | None = None,
    skipped: Mapping[str, str] | None = None,
) -> TrainingRunStatus:
    """The status with an entry for each export, made of its steps, what they have told and what stood there before."""
    before = {entry.name: entry for entry in status.exports or ()}
    entries = []
    for step, export in run.exports.items():
        known, said = before.get(export.name), (told or {}).get(step)
        entries.append(_entry(export, _step(status.steps or (), step), known, said, (skipped or {}).get(step)))
    values = values_of(metadata=run.metadata, spec=run.spec)
    model = ModelStatus(name=values["model"], version=values["version"])
    status = status.model_copy(update={"exports": entries, "model": model})
    promoted = _step(status.steps or (), STEP_PROMOTE)
    if promoted.state != "Succeeded" or status.promotions:
        return status
    last = last_attempt(promoted)
    where = [export.name for export in run.exports.values() if export.promotes]
    judged = status.evaluation or EvaluationStatus()
    gate = judged.gates[0] if judged.gates else None
    entry = PromotionStatus(
        kind="Promoted",
        version=model.version,
        time=(last.completion_time if last else None) or "",
        exports=where,
        gain=gate.gain if gate else None,
        interval=" to ".join(gate.interval) if gate and gate.interval else None,
        reason=judged.message,
    )
    return status.model_copy(update={"promotions": [entry]})


def failed(run: RunRef, status: TrainingRunStatus) -> list[ExportStatus]:
    """Those that failed and that the run is not to be called a success without."""
    strict = {export.name for export in run.exports.values() if export.on_failure == "Fail"}
    return [entry for entry in status.exports or () if entry.state == "Failed" and entry.name in strict]


def values(run: RunRef, status: TrainingRunStatus, export: Export) -> dict[str, str]:
    """What the export's placeholders stand for."""
    first = export.depends_on[0] if export.depends_on else None
    uri = next((e.uri for e in status.exports or () if e.name == first and e.uri), "")
    digest = (status.provenance or {}).get(MODEL_DIGEST)
    return values_of(metadata=run.metadata, spec=run.spec, digest=digest, uri=uri)


def sent_to(status: TrainingRunStatus) -> dict[str, str]:
    """Where each export has put the result."""
    return {entry.name: entry.uri for entry in status.exports or () if entry.uri and entry.state == "Succeeded"}


def _why_skipped(
    run: RunRef, planned: PlannedStep, ledger: Ledger, skipped: Mapping[str, str], status: TrainingRunStatus
) -> str | None:
    """Why it will not begin; None where it may, or where that is not known yet."""
    for step in sorted(planned.after & run.exports.keys()):
        state = "Skipped" if step in skipped else _step(ledger.steps, step).state
        if state in ("Failed", "Skipped"):
            return f"export {run.exports[step].name}, which it depends on, {'failed' if state == 'Failed' else 'was skipped'}"
    end = run.spec.steps()[-1]
    if not planned.gated or _step(ledger.steps, end).state != "Succeeded":
        return None
    return _why_rejected(status)


def _why_rejected(status: TrainingRunStatus) -> str | None:
    """What the evaluation has against the result. Nothing measured is nothing passed."""
    condition = next((c for c in status.conditions or () if c.type == GATES_PASSED), None)
    evaluation = status.evaluation or EvaluationStatus()
    passed = condition.status == "True" if condition is not None else evaluation.passed
    if passed:
        return None
    why = (condition.message if condition is not None else None) or evaluation.message
    return f"the gates have not been passed: {why or 'the evaluation has said nothing about them'}"


def _entry(
    export: Export, step: StepStatus, known: ExportStatus | None, said: ExportRecord | None, skipped: str | None
) -> ExportStatus:
    last = last_attempt(step)
    message = skipped
    if message is None and step.state == "Skipped" and known is not None:
        message = known.message
    if message is None and last is not None and last.state in ("Failed", "Stopped"):
        message = last.message
    return ExportStatus(
        name=export.name,
        target=to_camel(export.kind),
        state=step.state,
        uri=said.uri if said else known.uri if known else None,
        version=said.version if said else known.version if known else None,
        digest=said.digest if said else known.digest if known else None,
        attempts=last.number if last else 0,
        message=one_line(message, limit=limit_of(ExportStatus, "message")) if message else None,
    )


def _step(steps: Sequence[StepStatus], name: str) -> StepStatus:
    return next((s for s in steps if s.name == name), StepStatus(name=name, state="Waiting"))
