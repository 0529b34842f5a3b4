"""`trainyard sweep`: the trials of a sweep in the order of their values."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from trainyard.cli.cluster import add_cluster, name_of, runs_of, same_cluster
from trainyard.cli.options import completes
from trainyard.cli.printing import add_output, bold, paint, print_next, print_objects, table, wrapped
from trainyard.client import NotFound, Runs


def arguments(parser: argparse.ArgumentParser) -> None:
    completes("sweep", parser.add_argument("name", metavar="SWEEP", help="Name of the TrainingSweep."))
    add_output(parser, forms=("table", "json", "yaml", "name"))
    add_cluster(parser)


def call(options: argparse.Namespace) -> None:
    """Show the trials of a TrainingSweep, the best first.

    Trials that have trained to their end come first, then those that were stopped, the farthest and best before the others.
    """
    runs, name = runs_of(options), name_of(options)
    raw = _get(runs, name)
    print_objects([raw], options.output, kind="trainingsweep", one=True, as_table=lambda: list(screen(raw)))
    if options.output == "table":
        best = ((raw.get("status") or {}).get("best") or {}).get("run")
        where = same_cluster(options)
        print()
        print_next(*([f"{options.called_as} status {best}{where}"] if best else []), f"{options.called_as} list{where}")


def _get(runs: Runs, name: str) -> dict[str, Any]:
    try:
        return runs.api.get(runs.path(name, plural="trainingsweeps"))
    except NotFound as error:
        raise NotFound(f"there is no TrainingSweep {name!r} in namespace {runs.namespace}") from error


def screen(raw: Mapping[str, Any]) -> Iterator[str]:
    """Lines for people."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    objective, state = spec.get("objective") or {}, str(status.get("state") or "")
    yield f"{bold(raw['metadata']['name'])}  {paint(state or 'not seen yet', state)}"
    if status.get("message"):
        yield from wrapped(str(status["message"]), indent="  ")
    trials = sorted(status.get("trials") or (), key=lambda trial: _rank(trial, objective.get("direction")))
    if not trials:
        return
    names = [parameter["name"] for parameter in spec.get("parameters") or ()]
    short = [name.rpartition(".")[2].upper() for name in names]
    heads = short if len(set(short)) == len(short) else [name.upper() for name in names]
    metric = str(objective.get("metric") or "value").upper()
    yield ""
    yield from table(
        ("RUN", "STATE", metric, "RUNG", *heads, "MESSAGE"), [tuple(_cells(trial, names)) for trial in trials]
    )


def _cells(trial: Mapping[str, Any], names: list[str]) -> Iterator[str]:
    values = trial.get("assignments") or {}
    yield from (
        str(trial.get("run")),
        str(trial.get("state")),
        str(trial.get("value") or ""),
        str(trial.get("rung") or ""),
    )
    yield from (str(values.get(name, "")) for name in names)
    yield str(trial.get("message") or "")


def _rank(trial: Mapping[str, Any], direction: object) -> tuple[Any, ...]:
    """Ended ones by value, then stopped ones by rung and value, then the others by number."""
    value = trial.get("value")
    measured = 0.0 if value is None else float(value) if direction != "Maximize" else -float(value)
    ended = trial.get("state") == "Succeeded"
    return (not ended, value is None, 0 if ended else -(trial.get("rung") or 0), measured, trial.get("number"))
