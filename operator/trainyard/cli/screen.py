"""One run on one screen: pure text from the object, its pods and its Events."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainyard.api.names import ATTEMPT_LABEL, STEP_LABEL
from trainyard.cli.events import moment
from trainyard.cli.printing import age, bold, paint, readable_size, table, wrapped
from trainyard.client import Run

BAR = 30
LABEL = 12
EVENTS_SHOWN = 4
METRICS_SHOWN = 8


def screen(run: Run, pods: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines for people; what a run does not have is left out."""
    yield f"{bold(run.name)}  {paint(run.state or 'not seen by the operator yet', run.state)}  (namespace {run.namespace})"
    if run.message:
        yield from wrapped(run.message, indent="  ")
    yield ""
    yield from _progress(run)
    yield from _facts(run)
    yield from _steps(run)
    yield from _pods(pods)
    yield from _evaluation(run)
    yield from _exports(run)
    yield from _promotions(run)
    yield from _failure(run)
    yield from _events(events)


def _fact(label: str, value: str) -> Iterator[str]:
    if value:
        first, *more = wrapped(value, indent=" " * LABEL)
        yield f"{label:<{LABEL}}{first.strip()}"
        yield from more


def _progress(run: Run) -> Iterator[str]:
    trainer, summary = run.status.get("trainerStatus") or {}, run.status.get("summary") or {}
    share = trainer.get("progressPercentage")
    if share is not None:
        filled = BAR * int(share) // 100
        eta = f"  ETA {summary['eta']}" if summary.get("eta") else ""
        steps = f"  step {summary['step']}" if summary.get("step") else ""
        yield from _fact("Progress", f"[{'#' * filled}{'.' * (BAR - filled)}] {share}%{steps}{eta}")
    numbers = [_told(m["name"], m["value"]) for m in (trainer.get("metrics") or ())[:METRICS_SHOWN]]
    yield from _fact("Metrics", "  ".join(numbers))


def _told(name: str, value: Any) -> str:
    """A metric, with bytes in a size that people read."""
    text = str(value)
    if name.endswith("_bytes") and text.isdecimal():
        return f"{name.removesuffix('_bytes')} {readable_size(int(text))}"
    return f"{name} {text}"


def _facts(run: Run) -> Iterator[str]:
    status = run.status
    summary, checkpoint, dataset = (status.get(field) or {} for field in ("summary", "checkpoint", "dataset"))
    what = ", ".join(str(summary[field]) for field in ("method", "model") if summary.get(field))
    phase = f", phase {status['currentPhase']}" if status.get("currentPhase") else ""
    yield from _fact("Training", what + phase)
    effective = status.get("effective") or {}
    yield from _fact("Really ran", ", ".join(f"{name} {value}" for name, value in effective.items()))
    if dataset.get("records") is not None:
        splits = ", ".join(f"{name} {count}" for name, count in (dataset.get("splits") or {}).items())
        tokens = f", {dataset['tokens']} tokens" if dataset.get("tokens") else ""
        yield from _fact("Data", f"{dataset['records']} records{tokens}" + (f" ({splits})" if splits else ""))
    if checkpoint:
        when = f", {age(checkpoint.get('time'))} ago" if checkpoint.get("time") else ""
        yield from _fact(
            "Checkpoint", f"step {checkpoint.get('step')}{when}: {run.checkpoints_claim}, {checkpoint.get('path')}"
        )
    if started := status.get("startTime"):
        end = status.get("completionTime")
        took = f"took {age(started, end)}" if end else f"{age(started)} ago"
        yield from _fact("Started", f"{started}, {took}")
    if outputs := status.get("outputs"):
        yield from _fact("Outputs", "  ".join(f"{name}={value}" for name, value in outputs.items()))


def _steps(run: Run) -> Iterator[str]:
    rows = []
    for step in run.status.get("steps") or ():
        attempts = step.get("attempts") or [{}]
        for attempt in attempts:
            reached = [str(attempt[key]) for key in ("firstStep", "lastStep") if attempt.get(key) is not None]
            rows.append(
                (
                    step["name"],
                    attempt.get("state") or step["state"],
                    str(attempt.get("number") or ""),
                    attempt.get("node") or "",
                    "-".join(reached),
                    age(attempt.get("startTime"), attempt.get("completionTime")),
                    attempt.get("reason") or "",
                )
            )
    if rows:
        yield ""
        yield from table(("STEP", "STATE", "ATTEMPT", "NODE", "STEPS", "TOOK", "REASON"), rows)


def _pods(pods: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = []
    for pod in pods:
        status, labels = pod.get("status") or {}, pod["metadata"].get("labels") or {}
        if status.get("phase") not in ("Pending", "Running"):
            continue
        devices = _devices(pod)
        rows.append(
            (
                pod["metadata"]["name"],
                status["phase"],
                f"{labels.get(STEP_LABEL)} {labels.get(ATTEMPT_LABEL)}",
                pod["spec"].get("nodeName") or "",
                devices,
                age(pod["metadata"].get("creationTimestamp")),
            )
        )
    if rows:
        yield ""
        yield from table(("POD", "STATE", "STEP", "NODE", "DEVICES", "AGE"), rows)


def _devices(pod: Mapping[str, Any]) -> str:
    found: dict[str, str] = {}
    for container in pod["spec"].get("containers") or ():
        limits = (container.get("resources") or {}).get("limits") or {}
        found |= {name: value for name, value in limits.items() if "/" in name and not name.startswith("hugepages-")}
    return ", ".join(f"{value} {name}" for name, value in found.items()) or "none"


def _evaluation(run: Run) -> Iterator[str]:
    evaluation = run.status.get("evaluation") or {}
    if not evaluation:
        return
    yield ""
    before = {m["name"]: m["value"] for m in evaluation.get("baseline") or ()}
    numbers = [
        f"{m['name']} {m['value']}" + (f" (before {before[m['name']]})" if m["name"] in before else "")
        for m in evaluation.get("metrics") or ()
    ]
    yield from _fact("Evaluation", ", ".join(numbers) or "nothing measured")
    if evaluation.get("passed") is not None:
        verdict = "passed" if evaluation["passed"] else "not passed"
        yield from _fact("", f"{verdict}: {evaluation.get('message') or ''}".rstrip(": "))
    gates = evaluation.get("gates") or ()
    if gates:
        rows = [tuple(_text(gate.get(f)) for f in ("metric", "verdict", "value", "gain", "interval")) for gate in gates]
        yield from table(("GATE", "STATE", "VALUE", "GAIN", "INTERVAL"), rows)


def _exports(run: Run) -> Iterator[str]:
    exports = run.status.get("exports") or ()
    if exports:
        rows = [
            tuple(_text(export.get(f)) for f in ("name", "target", "state", "version", "uri")) for export in exports
        ]
        yield ""
        yield from table(("EXPORT", "TARGET", "STATE", "VERSION", "URI"), rows)
        for export in exports:
            if export.get("message") and export.get("state") != "Succeeded":
                yield from wrapped(f"{export.get('name')}: {export['message']}", indent="  ")


def _promotions(run: Run) -> Iterator[str]:
    for promotion in (run.status.get("promotions") or ())[-3:]:
        words = [
            _text(promotion.get(f))
            for f in ("version", "time", "gain", "interval", "reason")
            if promotion.get(f) is not None
        ]
        yield from _fact("Promotion", ", ".join(words))


def _failure(run: Run) -> Iterator[str]:
    failure = run.status.get("failure") or {}
    if failure:
        yield ""
        yield from _fact("Failed", f"{failure.get('reason')}: {failure.get('message')}")
        yield from _fact("Way out", str(failure.get("hint") or ""))


def _events(events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if events:
        yield ""
        rows = [
            (f"{age(moment(e))} ago", str(e.get("reason")), _text(e.get("message")).replace("\n", " "))
            for e in events[:EVENTS_SHOWN]
        ]
        yield from table(("WARNING", "REASON", "MESSAGE"), rows)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "..".join(map(str, value))
    if isinstance(value, Mapping):
        return "..".join(str(value[key]) for key in ("low", "high") if key in value) or str(dict(value))
    return "" if value is None else str(value)
