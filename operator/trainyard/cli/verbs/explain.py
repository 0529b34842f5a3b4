"""`trainyard explain`: the status, the pods and their Events in words, with what to do."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainyard.cli.cluster import add_cluster, add_run, name_of, runs_of, same_cluster
from trainyard.cli.events import warnings_about
from trainyard.cli.printing import age, bold, paint, seconds_since, wrapped
from trainyard.cli.reasons import advice_on
from trainyard.client import Fate, Run
from trainyard.client.logs import pods_of

SILENT_SECONDS = 600
"""Without a report for so long, a training is worth a look."""
UNSEEN_SECONDS = 30
EVENTS_SHOWN = 5
LOG_LINES = 8


def arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_cluster(parser)


def call(options: argparse.Namespace) -> None:
    """Say in words why a run waits or has failed, and what to do."""
    runs = runs_of(options)
    run = runs.get(name_of(options))
    pods = pods_of(runs.api, run) if not run.ended else []
    events = [] if run.fate is Fate.SUCCEEDED else warnings_about(runs, run, pods)
    for line in explain(run, pods, events, called_as=options.called_as, where=same_cluster(options)):
        print(line)


def explain(
    run: Run,
    pods: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    *,
    called_as: str,
    where: str = "",
) -> Iterator[str]:
    """Lines for people: how it stands, why, what happened before, what to do. `where` follows in each command."""
    yield f"{bold(run.name)}  {paint(run.state or 'not seen yet', run.state)}"
    if not run.state:
        yield from _not_seen(run, called_as, where)
        return
    if run.message:
        yield from wrapped(run.message, indent="  ")
    reason = _reason(run)
    advice = advice_on(reason)
    yield ""
    yield from wrapped(f"Why: {advice.means} ({reason}).")
    yield from _attempts(run)
    yield from _silence(run)
    for event in events[:EVENTS_SHOWN]:
        about = event.get("involvedObject") or {}
        yield from wrapped(f"Event: {about.get('kind')} {about.get('name')}: {event.get('message')}")
    yield from _what_to_do(run, advice.do, called_as, where)


def _not_seen(run: Run, called_as: str, where: str) -> Iterator[str]:
    waited = seconds_since(run.metadata.get("creationTimestamp")) or 0
    yield from wrapped(
        f"Why: no operator has looked at it yet; it was created {age(run.metadata.get('creationTimestamp'))} ago."
    )
    if waited > UNSEEN_SECONDS:
        text = f"What to do: see whether the operator runs, and watches namespace {run.namespace}: {called_as} doctor{where}"
        yield from wrapped(text)


def _reason(run: Run) -> str:
    """The newest word that programs may match on."""
    failure = run.status.get("failure") or {}
    for reason in (failure.get("reason"), run.condition("Failed").get("reason") if run.ended else None):
        if reason:
            return str(reason)
    return str(run.condition("Ready").get("reason") or run.state)


def _attempts(run: Run) -> Iterator[str]:
    for step in run.status.get("steps") or ():
        for attempt in step.get("attempts") or ():
            reason = attempt.get("reason")
            if attempt.get("state") == "Failed" or reason in ("Disrupted", "Interrupted", "OutOfMemoryReduced"):
                counted = "counted" if attempt.get("counted") else "not counted"
                where = f" on {attempt['node']}" if attempt.get("node") else ""
                said = f": {attempt['message']}" if attempt.get("message") else ""
                text = f"{step['name']}, attempt {attempt.get('number')}{where}, {reason} ({counted}){said}"
                yield from wrapped(f"- {text}")
                for line in (attempt.get("lastLogLines") or [])[-LOG_LINES:]:
                    yield f"    | {line}"


def _silence(run: Run) -> Iterator[str]:
    told = (run.status.get("trainerStatus") or {}).get("lastUpdatedTime")
    silent = seconds_since(told)
    if run.state == "Training" and silent is not None and silent > SILENT_SECONDS:
        text = (
            f"Its pod has not reported for {age(told)}: it may hang, or the network between pod and operator is closed."
        )
        yield from wrapped(text)


def _what_to_do(run: Run, do: str, called_as: str, where: str) -> Iterator[str]:
    hint = (run.status.get("failure") or {}).get("hint")
    advice = do.format(called=called_as, run=run.name + where, where=where)
    if run.condition("Failed").get("status") == "True" and hint:
        yield from wrapped(f"What to do: {hint}.".replace("..", "."))
        if advice:
            yield from wrapped(f"Or: {advice}.")
    elif advice:
        yield from wrapped(f"What to do: {advice}.")
    else:
        yield "What to do: nothing."
